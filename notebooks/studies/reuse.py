"""Notebook 13: is a depth found once good for a similar dataset, and is the search better than plain training?

Per dataset and seed three networks are trained: by the search; plainly, from initial weights, at the depth that a
search on a similar ("sibling") dataset found; and plainly at the search's own depth, for as many multiply-accumulates
as the search took, a baseline that the paper lacks.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from odnlib import recipes
from odnlib.files import read_json, write_json
from odnlib.paper import TABLE_1
from odnlib.presets import SETTINGS_OF_RULE
from odnlib.recipes import Recipe, RecipeError
from studies import common, plots

INDEX_FILE = "reuse.json"  # in a profile's folder: which runs make up the studies; all else is read from their folders
TITLE_OF_ARM = {
    "search": "search",
    "reused": "plain, at the sibling's depth",
    "plain": "plain, at its own depth, same cost",
}
ARMS_OF_QUESTION = {"reused": ("reused", "search"), "expansion": ("search", "plain")}  # difference: first - second
VARIED_SETTINGS = {"architecture", "target_pct", "tolerance_pct"}  # that datasets may have of their own
STUDY_COLUMNS = ["profile", "architecture", "rule", "settings"]  # what its datasets and seeds have in common
MEASURED_COLUMNS = ["depth", "epochs", "train_tmacs", "val_acc_pct", "test_acc_pct", "processor"]
DatasetPairs = Sequence[tuple[str, str]]  # dataset, and the sibling whose depth it is given


def plan_searches(
    profile: str, rule: str, pairs: DatasetPairs, seeds: Sequence[int], overrides: dict, targets: dict
) -> dict[tuple[str, int], Recipe]:
    """Return (dataset, seed) -> recipe of its search, for all datasets in `pairs`; `targets`: dataset -> target_pct.
    RecipeError if a pair is not of two datasets, or a setting in `overrides` is invalid.
    """
    if not pairs or any(len(set(pair)) != 2 for pair in pairs):
        raise RecipeError(f"pairs {pairs} name no two datasets: a dataset, and the sibling whose depth it is given")
    keys = list(product(dict.fromkeys(chain(*pairs)), seeds))
    usual = {"profile": profile, "rule": rule, "architecture": "resnet18"}  # one: a depth is of its architecture
    own = {row: {"target_pct": target} for row, target in targets.items()}
    wanted = [usual | {"row": row, "seed": seed} | own.get(row, {}) | overrides for row, seed in keys]
    return dict(zip(keys, recipes.resolve_all(wanted), strict=True))


def plan_training_at_same_cost(search: Recipe, folder: Path) -> Recipe:
    """Return the recipe of plain training at the depth that a finished search found, for about as many MACs."""
    epochs, depth = pd.read_csv(folder / "epochs.csv"), recipes.read_run(folder).depth
    per_epoch = epochs["train_tmacs"].diff().fillna(epochs["train_tmacs"])[epochs["depth"] == depth].iloc[-1]
    most = round(epochs["train_tmacs"].iloc[-1] / per_epoch)
    patience = search.patience if search.one_cycle else max(most, search.patience)  # so that it has all its epochs
    return replace(search, variant="full", last_depth=depth, full_epochs=most, patience=patience)


def train_pairs(searches: dict, pairs: DatasetPairs, results_dir: Path, train: Callable[[Recipe], Path]) -> None:
    """Train the three networks of each pair and seed by `train` (recipe -> folder of its run), and list their runs in
    <results_dir>/<profile>/reuse.json.
    """
    folders, listed = {key: train(recipe) for key, recipe in searches.items()}, []
    for (row, sibling), seed in product(pairs, sorted({seed for _, seed in searches})):
        search, folder = searches[row, seed], folders[row, seed]
        depth = recipes.read_run(folders[sibling, seed]).depth
        plain = plan_training_at_same_cost(search, folder)
        reused = replace(search, variant="full", last_depth=depth)
        names = {"search": folder.name, "reused": train(reused).name, "plain": train(plain).name}
        listed.append({"row": row, "sibling": sibling, "seed": seed} | names)
    file = results_dir / search.profile / INDEX_FILE
    runs = common.read_finished_runs(results_dir, search.profile, varied=VARIED_SETTINGS).set_index("name")
    every = pd.DataFrame([*(read_json(file) or {"studies": []})["studies"], *listed])
    every = every.join(runs[["goal_pct", *STUDY_COLUMNS]], on="search", how="inner")  # without those set aside
    last_goal = every.groupby(["row", "sibling", *STUDY_COLUMNS])["goal_pct"].transform("last")
    every = every[every["goal_pct"] == last_goal]  # other goals are replaced
    every = every.groupby(["search", "sibling"], sort=False).last().reset_index()  # done again, it keeps its place
    write_json(file, {"studies": every[list(listed[0])].to_dict("records")})


def read_results(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return a table, one row per dataset, sibling, seed and arm of a profile, with `MEASURED_COLUMNS`."""
    results = []
    for file in Path(results_dir).glob(f"{profile}/{INDEX_FILE}"):
        runs = common.read_finished_runs(results_dir, profile, varied=VARIED_SETTINGS).set_index("name")
        for listed in read_json(file)["studies"]:
            if all(listed[arm] in runs.index for arm in TITLE_OF_ARM):  # none was set aside
                about = runs.loc[listed["search"], [*STUDY_COLUMNS, "row", "seed", "folder"]].to_dict()
                about |= {name: listed[name] for name in ("sibling", "search")}
                about["not_comparable"] = runs.loc[listed["search"], "not_comparable"]
                for arm in TITLE_OF_ARM:
                    results.append(about | {"arm": arm} | runs.loc[listed[arm], MEASURED_COLUMNS].to_dict())
    return pd.DataFrame(results)


def summarise_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return a table, one row per study, dataset and question: mean difference of two arms' test accuracies in points,
    its 95 % interval (low, high) over n seeds, cost_ratio of their training, and a verdict: `reused` holds if at most
    half a point is lost, `expansion` if the search's network is more accurate.
    """
    summary = []
    for _, study in results.groupby([*STUDY_COLUMNS, "row", "sibling"], sort=False):
        about = study.iloc[0][[*STUDY_COLUMNS, "row", "sibling", "not_comparable", "processor"]].to_dict()
        arms = study.pivot(index="seed", columns="arm")
        accuracy, cost = arms["test_acc_pct"], arms["train_tmacs"].sum()
        for question, (arm, other) in ARMS_OF_QUESTION.items():
            mean, low, high = common.confidence_interval(accuracy[arm] - accuracy[other])
            least = -common.ALLOWED_ACCURACY_LOSS_PTS if question == "reused" else 0.0
            found = {"question": question, "difference": mean, "low": low, "high": high, "n": len(arms)}
            found |= {"cost_ratio": cost[arm] / cost[other], "verdict": common.judge_interval(low, high, least)}
            summary.append(about | found)
    return pd.DataFrame(summary)


def judge_claim(summary: pd.DataFrame, question: str) -> tuple[str, str]:
    """Return (verdict, reason) on a question (reused or expansion) of `summarise_over_seeds`, from the profile with
    most work: holds if it holds for all its datasets. Searches by rule `equal` train each depth alike and are no
    evidence for `expansion`.
    """
    telling = (summary["rule"] != "equal") | (question == "reused")
    asked = summary[(summary["question"] == question) & telling]
    if asked.empty:
        return "not measured", "no search that expands the depth has been held against plain training"
    asked = common.select_strongest_study(asked, ["profile"])
    asked = asked.sort_values("rule", key=lambda rule: ~rule.isin(SETTINGS_OF_RULE), kind="stable")  # gone ones last
    verdicts = set(asked["verdict"])
    judged = next((x for x in (common.CLAIM_FAILS, common.CLAIM_OPEN) if x in verdicts), common.CLAIM_HOLDS)
    why = "; ".join(map(describe_summary, asked.itertuples()))
    return common.qualify_verdict(judged, why, asked["not_comparable"].iloc[0])


def describe_summary(answer: pd.Series) -> str:
    """Return a row of `summarise_over_seeds` as a sentence."""
    row, sibling = TABLE_1[answer.row].title, TABLE_1[answer.sibling].title
    compared = {
        "reused": f"trained plainly at the depth that the search on {sibling} found, against a search",
        "expansion": "found by the search, against the same network trained plainly at the same cost",
    }[answer.question]
    interval = common.describe_interval(answer.low, answer.high, answer.n)
    points = f"{answer.difference:+.2f} points of test accuracy ({interval})"
    cost = f"{answer.cost_ratio:.2f} of the training cost, on {answer.processor}"
    return f"{row}, {answer.rule}, {compared}: {points} for {cost}: {answer.verdict}"


def draw_results(results: pd.DataFrame) -> Figure:
    """Draw test accuracy and training cost of the three arms, a column of panels for each dataset in one study's
    `results`, a point per seed with its depth.
    """
    pairs, words = dict(list(results.groupby(["row", "sibling"], sort=False))), list(TITLE_OF_ARM.values())
    drawn, axes = plots.make_axes(2, len(pairs), 4.4, squeeze=False, sharex=True)
    labels = {"test_acc_pct": "test accuracy (%)", "train_tmacs": "training MACs (10¹²)"}
    for ((row, sibling), of_pair), of_dataset in zip(pairs.items(), axes.T, strict=True):
        for axis, (column, label) in zip(of_dataset, labels.items(), strict=True):
            for x in of_pair.assign(beside=0.12 * (of_pair["seed"].rank(method="dense") - 2)).to_dict("records"):
                spot = list(TITLE_OF_ARM).index(x["arm"]) + x["beside"], x[column]
                axis.plot(*spot, "o", color=plots.COLOR_FOUND, ms=5)
                look = {"xytext": (0, 5), "textcoords": "offset points", "fontsize": 8, "ha": "center"}
                axis.annotate(x["depth"], spot, **look)
            axis.set(ylabel=label, xticks=range(len(words)), xmargin=0.15, ymargin=0.2)
            axis.set_xticklabels([textwrap.fill(word, 17) for word in words], fontsize=8)
        of_dataset[0].set_title(
            f"{TABLE_1[row].title} (sibling: {TABLE_1[sibling].title})\nat each point its depth", fontsize=9
        )
    run = recipes.read_run(results["folder"].iloc[0])
    seeds = f"{common.list_seeds(results)} (a point each, with its depth)"
    return plots.write_caption(drawn, run, seeds, varied=("row", *VARIED_SETTINGS))
