"""Notebook 13: is a depth found once good for a similar dataset, and is the search better than plain training?

Per dataset and seed three networks are trained: by the search; plainly, from initial weights, at the depth that a
search on a similar ("sibling") dataset found; and plainly at the search's own depth, for as many multiply-accumulates
as the search took, a baseline that the paper lacks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from odnlib import recipes
from odnlib.files import read_json, write_json
from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe, RecipeError
from studies import common, plots
from studies.plots import caption

INDEX = "reuse.json"  # which runs make up the studies; all else is read from their folders
ARMS = {"search": "search", "reused": "plain, at the sibling's depth", "plain": "plain, at its own depth, same cost"}
QUESTIONS = {"reused": ("reused", "search"), "expansion": ("search", "plain")}  # difference: first arm - second
VARIED = {"architecture", "target_pct", "tolerance_pct"}  # settings that rows may have of their own
STUDY_KEYS = ["profile", "architecture", "rule", "settings"]  # what its rows and seeds have in common
MEASURED = ["depth", "epochs", "train_tmacs", "val_acc_pct", "test_acc_pct", "processor"]
Pairs = Sequence[tuple[str, str]]  # dataset, and the sibling whose depth it is given
Searches = dict[tuple[str, int], Recipe]  # by row and seed


def searches(profile: str, rule: str, pairs: Pairs, seeds: Sequence[int], overrides: dict, targets: dict) -> Searches:
    """Return (dataset, seed) -> recipe of its search, for all in `pairs`; `targets`: dataset -> its own target_pct."""
    if not pairs or any(len(set(pair)) != 2 for pair in pairs):
        raise RecipeError(f"pairs {pairs} name no two datasets: a dataset, and the sibling whose depth it is given")
    keys = list(product(dict.fromkeys(chain(*pairs)), seeds))
    usual = {"profile": profile, "rule": rule, "architecture": "resnet18"}  # one: a depth is of its architecture
    own = {row: {"target_pct": target} for row, target in targets.items()}
    wanted = [usual | {"row": row, "seed": seed} | own.get(row, {}) | overrides for row, seed in keys]
    return dict(zip(keys, recipes.resolve_all(wanted), strict=True))


def at_same_cost(search: Recipe, folder: Path) -> Recipe:
    """Return the recipe of plain training at the depth that a search found, for about the search's training cost."""
    epochs, depth = pd.read_csv(folder / "epochs.csv"), recipes.read_run(folder).depth
    per_epoch = epochs["train_tmacs"].diff().fillna(epochs["train_tmacs"])[epochs["depth"] == depth].iloc[-1]
    most = round(epochs["train_tmacs"].iloc[-1] / per_epoch)
    patience = search.patience if search.one_cycle else max(most, search.patience)  # so that it has all its epochs
    return replace(search, variant="full", last_depth=depth, full_epochs=most, patience=patience)


def measure(searched: Searches, pairs: Pairs, results_dir: Path, train: Callable[[Recipe], Path]) -> None:
    """Train the three networks of each pair and seed, and list their runs in results/<profile>/reuse.json."""
    folders, lines = {key: train(recipe) for key, recipe in searched.items()}, []
    for (row, sibling), seed in product(pairs, sorted({seed for _, seed in searched})):
        search, folder = searched[row, seed], folders[row, seed]
        depth = recipes.read_run(folders[sibling, seed]).depth
        plainly = {"reused": replace(search, variant="full", last_depth=depth), "plain": at_same_cost(search, folder)}
        line = {"row": row, "sibling": sibling, "seed": seed, "search": folder.name}
        lines.append(line | {arm: train(recipe).name for arm, recipe in plainly.items()})
    file, runs = results_dir / search.profile / INDEX, common.finished(results_dir, search.profile, varied=VARIED)
    every = pd.DataFrame([*(read_json(file) or {"studies": []})["studies"], *lines])
    every = every.join(
        runs.set_index("name")[["goal_pct", *STUDY_KEYS]], on="search", how="inner"
    )  # without searches that were set aside
    last_goal = every.groupby(["row", "sibling", *STUDY_KEYS])["goal_pct"].transform("last")
    every = every[every["goal_pct"] == last_goal]  # other goals are replaced
    every = every.groupby(["search", "sibling"], sort=False).last().reset_index()  # done again, a line keeps its place
    write_json(file, {"studies": every[list(lines[0])].to_dict("records")})


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return a line per dataset, sibling, seed and arm of the reuse studies, with `STUDY_KEYS` and `MEASURED`."""
    lines = []
    for file in Path(results_dir).glob(f"{profile}/{INDEX}"):
        runs = common.finished(results_dir, profile, varied=VARIED).set_index("name")
        for line in read_json(file)["studies"]:
            if all(line[arm] in runs.index for arm in ARMS):  # none was set aside
                search = runs.loc[line["search"]]
                about = search[[*STUDY_KEYS, "row", "seed", "folder"]].to_dict()
                about |= {name: line[name] for name in ("sibling", "search")}
                about["not_comparable"] = search["not_comparable"]
                lines += [about | {"arm": arm} | runs.loc[line[arm], MEASURED].to_dict() for arm in ARMS]
    return pd.DataFrame(lines)


def answers(lines: pd.DataFrame) -> pd.DataFrame:
    """Return per reuse study, dataset and question the mean difference in test accuracy with its 95 % interval over
    seeds, the ratio of training costs, and a verdict.

    `reused` holds if at most the tolerance is lost, `expansion` if the search's network is more accurate.
    """
    answered = []
    for _, study in lines.groupby([*STUDY_KEYS, "row", "sibling"], sort=False):
        about = study.iloc[0][[*STUDY_KEYS, "row", "sibling", "not_comparable", "processor"]].to_dict()
        arms = study.pivot(index="seed", columns="arm")
        accuracy, cost = arms["test_acc_pct"], arms["train_tmacs"].sum()
        for question, (arm, reference) in QUESTIONS.items():
            mean, low, high = common.interval(accuracy[arm] - accuracy[reference])
            line = {"question": question, "difference": mean, "low": low, "high": high, "n": len(arms)}
            judged = common.judged(low, high, -common.ALLOWED_LOSS_PCT if question == "reused" else 0.0)
            answered.append(about | line | {"cost_ratio": cost[arm] / cost[reference], "verdict": judged})
    return pd.DataFrame(answered)


def verdict(answered: pd.DataFrame, question: str) -> tuple[str, str]:
    """Return (verdict, reason) on one question of the reuse study, from the profile with most work: holds if it holds
    for all its datasets. Searches by rule `equal` train each depth alike and are no evidence for `expansion`.
    """
    telling = (answered["rule"] != "equal") | (question == "reused")
    lines = answered[(answered["question"] == question) & telling]
    if lines.empty:
        return "not measured", "no search that expands the depth has been held against plain training"
    lines = common.most_telling(lines, ["profile"])
    judged = next((word for word in (common.FAILS, common.OPEN) if word in set(lines["verdict"])), common.HOLDS)
    return common.qualified(judged, "; ".join(map(sentence, lines.itertuples())), lines["not_comparable"].iloc[0])


def sentence(answer: pd.Series) -> str:
    """Return one line of the reuse `answers` as a sentence."""
    row, sibling = TABLE_1[answer.row].title, TABLE_1[answer.sibling].title
    compared = {
        "reused": f"trained plainly at the depth that the search on {sibling} found, against a search",
        "expansion": "found by the search, against the same network trained plainly at the same cost",
    }[answer.question]
    points = f"{answer.difference:+.2f} points of test accuracy ({common.between(answer.low, answer.high, answer.n)})"
    cost = f"{answer.cost_ratio:.2f} of the training cost, on {answer.processor}"
    return f"{row}, {answer.rule}, {compared}: {points} for {cost}: {answer.verdict}"


def figure(lines: pd.DataFrame) -> Figure:
    """Draw test accuracy and training cost of the three networks per dataset, a point per seed, for one reuse study."""
    pairs = dict(list(lines.groupby(["row", "sibling"], sort=False)))
    names = [f"{TABLE_1[row].title}\n(sibling: {TABLE_1[sibling].title})" for row, sibling in pairs]
    drawn, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 3.4), layout="constrained")
    for column, axis in zip(("test_acc_pct", "train_tmacs"), axes, strict=True):
        for place, of_pair in enumerate(pairs.values()):
            for k, (arm, color) in enumerate(zip(ARMS, (plots.FOUND, "0.5", plots.OTHER), strict=True)):
                runs = of_pair[of_pair["arm"] == arm]
                beside = place + 0.22 * (k - 1) + 0.04 * (runs["seed"].rank(method="dense") - 2)
                axis.plot(beside, runs[column], "o", color=color, label=None if place else ARMS[arm], ms=5)
                spot, look = (beside.mean(), runs[column].max()), {"fontsize": 8, "color": "0.3", "ha": "center"}
                axis.annotate(", ".join(map(str, runs["depth"])), spot, (0, 7), textcoords="offset points", **look)
        axis.set(xticks=range(len(pairs)), xticklabels=names, xmargin=0.15, ymargin=0.15)
    axes[0].set_ylabel("test accuracy (%), a point per seed;\nnumbers: depths")
    axes[1].set(ylabel="training MACs (10¹²)", ylim=(0, None))
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return caption(drawn, recipes.read_run(lines["folder"].iloc[0]), common.seeds_of(lines), varied=tuple(VARIED))


def write(results_dir: Path | str, profile: str) -> None:
    """Write the reuse study's reuse.csv, reuse_answers.csv and figures."""
    common.write_study(results_dir, table(results_dir, profile), "reuse", STUDY_KEYS, figure, answers)
