"""Notebook 09: do harder datasets get deeper networks (Section IV)? From searches that tried every depth.

The depth that a dataset needs is the smallest one whose validation accuracy is within a tolerance of the best at any
depth. The paper sets its targets likewise: what can be reached, less half a point.
"""

from collections.abc import Iterable
from itertools import permutations, product
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from odnlib import recipes
from odnlib.paper import TABLE_1
from studies import common, plots

VARIED_SETTINGS = {"row", "architecture", *common.SETTINGS_WITHOUT_GOAL}
TOLD_SETTINGS = ("depth_epochs",)  # in `settings` also where it is a dataset's usual number, which others may not have
STUDY_COLUMNS = ["profile", "rule", "settings"]
RESULT_COLUMNS = [*STUDY_COLUMNS, "architectures", "row", "architecture", "seed", "best_val_acc_pct", "of"]
RESULT_COLUMNS += ["paper_depth", "folder", "not_comparable", "tolerance_pct", "depth"]
TOLERANCES_PCT = (0.5, 1.0, 2.0)  # points; verdicts are taken at the first, which is the released code's
PAPER_ARCHITECTURES = "the paper's architectures"  # in the column architectures: each dataset has its own
FEWEST_DATASETS = 3  # that make a trend
MOST_LOST_PTS = 6  # that the figure shows
SIBLING_PAIRS = (("mnist", "emnist"), ("emnist", "mnist"), ("fashion_mnist", "emnist"))  # given the second one's depth
IMAGE_COUNTS = {"train_images", "validation_images"}  # settings that own images, which are all used, cannot have


def plan_recipes(
    profile: str, rows: Iterable[str], architectures: Iterable[str], seeds: Iterable[int], overrides: dict
) -> list[recipes.Recipe]:
    """Return the recipes of searches by `equal` that try every depth: each dataset in `rows`, of Table I or somebody's
    own, with each architecture ("": its own in the paper) and seed; RecipeError if one is invalid, or there are fewer
    than three datasets.
    """
    if len(set(rows)) < FEWEST_DATASETS:
        raise recipes.RecipeError(f"rows {list(rows)} are fewer than {FEWEST_DATASETS}: no trend can be read off them")
    same, wanted = overrides | common.SETTINGS_WITHOUT_GOAL | {"profile": profile, "rule": "equal"}, []
    for row, architecture, seed in product(rows, architectures, seeds):
        settings = {name: x for name, x in same.items() if row in TABLE_1 or name not in IMAGE_COUNTS}
        wanted.append(settings | {"row": row, "seed": seed} | ({"architecture": architecture} if architecture else {}))
    # A row whose own architecture is also the common one is searched once.
    return list(dict.fromkeys(recipes.resolve_all(wanted)))


def find_table_row(row: str) -> str:
    """Return a dataset's row of Table I: for own images the name of their folder, which need not be one."""
    return row if row in TABLE_1 else row.removeprefix("own_").rpartition("_")[0]


def make_title(row: str) -> str:
    """Return a dataset's title; that of own images says so."""
    name = find_table_row(row)
    return (TABLE_1[name].title if name in TABLE_1 else name) + " (own images)" * (row not in TABLE_1)


def describe_studies(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `read_finished_runs` with the `settings` that make up a study, over all its datasets. Runs on
    own images belong to the study of a run on a dataset of Table I with the same settings but for numbers of images,
    which a folder has by itself.
    """
    settings, alike = (
        [common.describe_overrides(run, varied, TOLD_SETTINGS) for run in runs.itertuples()]
        for varied in (VARIED_SETTINGS, VARIED_SETTINGS | IMAGE_COUNTS)
    )
    runs = runs.assign(settings=settings, alike=alike, own=~runs["row"].isin(TABLE_1))
    study = runs[~runs["own"]].groupby(["rule", "alike"])[["settings", "not_comparable"]].last()
    found = runs[["rule", "alike"]].join(study, on=["rule", "alike"])
    for name in study:
        runs[name] = runs[name].mask(runs["own"] & found[name].notna(), found[name])
    return runs


def find_depth_needed(depths: pd.DataFrame, tolerance_pct: float) -> int:
    """Return the smallest depth in depths.csv within `tolerance_pct` points of the best validation accuracy."""
    near = depths["val_acc_pct"] >= depths["val_acc_pct"].max() - tolerance_pct
    return int(depths.loc[near, "depth"].min())


def read_results(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return a table (`RESULT_COLUMNS`), one row per tolerance and search that tried every depth: the depth needed, the
    paper's, if it has one. A search whose architecture is both its dataset's own and the common one is listed twice.
    """
    runs = common.read_finished_runs(results_dir, profile, "odn", VARIED_SETTINGS, own=True)
    if runs.empty:
        return runs
    every = (runs["first_depth"] == 1) & (runs["last_depth"] == runs["max_depth"])
    runs = describe_studies(runs[every & (runs["goal_pct"] >= 100)].rename(columns={"last_depth": "of"}))
    paper = pd.DataFrame({row: (x.odn.depth, x.architecture) for row, x in TABLE_1.items()}, ["depth", "architecture"])
    runs["paper_depth"] = runs["row"].map(find_table_row).map(paper.loc["depth"])
    runs["architectures"] = runs["architecture"]
    usual = runs["architecture"] == runs["row"].map(paper.loc["architecture"])
    runs = pd.concat([runs[usual].assign(architectures=PAPER_ARCHITECTURES), runs])
    runs = runs[runs.groupby([*STUDY_COLUMNS, "architectures"])["row"].transform("nunique") >= FEWEST_DATASETS]
    depths = [pd.read_csv(folder / "depths.csv") for folder in runs["folder"]]
    runs["best_val_acc_pct"] = [x["val_acc_pct"].max() for x in depths]
    tables = [runs.assign(tolerance_pct=y, depth=[find_depth_needed(x, y) for x in depths]) for y in TOLERANCES_PCT]
    order = [*STUDY_COLUMNS, "architectures", "tolerance_pct", "paper_depth", "seed"]
    return pd.concat(tables)[RESULT_COLUMNS].sort_values(order, ignore_index=True)


def judge_order(results: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): does the depth needed rise in the paper's order of datasets? `results` are of one kind
    of architectures and one tolerance. Judged by Kendall's tau between the paper's depths and our means over seeds,
    with its exact one-sided p: the share of all orders of the datasets whose tau is at least as far in its direction.
    With p < 0.05 the claim holds (tau > 0) or fails, otherwise it is open. Four datasets in perfect order have p =
    1/24; three can prove nothing. Own images count if their folder is called like a dataset of Table I.
    """
    rows = results.dropna(subset="paper_depth").groupby("row", sort=False)[["paper_depth", "depth"]].mean()
    taus = [stats.kendalltau(rows["paper_depth"], order).statistic for order in permutations(rows["depth"])]
    tau, sign = taus[0], -1 if taus[0] < 0 else 1
    why = ", ".join(f"{make_title(row)} {depth:.1f}" for row, depth in rows["depth"].items())
    within = f"{results['tolerance_pct'].iloc[0]:g} points of the best"
    why += f" (mean depth over {results['seed'].nunique()} seeds, within {within}): "
    if tau != tau:  # every dataset needs the same
        return common.CLAIM_OPEN, f"{why}no order, {len(rows)} datasets"
    p = sum(sign * (other - tau) > -1e-9 for other in taus) / len(taus)
    why += f"Kendall's tau with the paper's order {tau:+.2f}, p = {p:.2g}, {len(rows)} datasets"
    sure = common.CLAIM_HOLDS if sign > 0 else common.CLAIM_FAILS
    return (common.CLAIM_OPEN if p >= 0.05 else sure), why


def judge_claim(results: pd.DataFrame, question: str = "order") -> tuple[str, str]:
    """Return (verdict, reason) on "harder datasets get deeper networks" at the smallest tolerance, by the study in
    `read_results` with the most evidence. One architecture for all datasets decides, if tried: depths of different
    ones are not comparable. Question "reuse": `judge_reuse`.
    """
    if question == "reuse":
        return judge_reuse(results)
    strictest = results[results["tolerance_pct"] == results["tolerance_pct"].min()]
    study = common.select_strongest_study(strictest, STUDY_COLUMNS)
    judged = {kind: judge_order(searches) for kind, searches in study.groupby("architectures", sort=False)}
    decisive = next((kind for kind in judged if kind != PAPER_ARCHITECTURES), PAPER_ARCHITECTURES)
    why = "; ".join(f"{kind}: {verdict}, {why}" for kind, (verdict, why) in judged.items())
    first = study.iloc[0]
    return common.qualify_verdict(judged[decisive][0], f"rule {first['rule']}, {why}", first["not_comparable"])


def judge_reuse(results: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason) on "a depth can be reused for a similar dataset", by the study in `read_results` with
    the most evidence, one architecture for all: validation accuracy at the depth that the sibling needed less that at
    the depth that the dataset itself needed, paired by seed. Holds for a pair if the 90 % interval lies above a loss of
    half a point, and in all if it holds for every pair (`SIBLING_PAIRS`); "not measured" with fewer than three seeds.
    """
    alike = results[results["architectures"] != PAPER_ARCHITECTURES]
    strictest = alike[(alike["tolerance_pct"] == results["tolerance_pct"].min()) & (alike["rule"] == "equal")]
    if strictest.empty:
        return "not measured", "no search by equal has tried every depth"
    study, verdicts, told = common.select_strongest_study(strictest, STUDY_COLUMNS), [], []
    depths = study.pivot_table("depth", "seed", "row")
    folders = study.set_index(["row", "seed"])["folder"]
    for row, sibling in SIBLING_PAIRS:
        both = depths.reindex(columns=[row, sibling]).dropna().astype(int)
        gains = []
        for seed, own, siblings in both.itertuples():
            accuracy = pd.read_csv(folders[row, seed] / "depths.csv", index_col="depth")["val_acc_pct"]
            gains.append(accuracy[siblings] - accuracy[own])
        if len(gains) < 3:
            return "not measured", f"fewer than three seeds of {row} and {sibling}"
        mean, low, high = common.confidence_interval(pd.Series(gains), 90)
        verdicts.append(common.judge_interval(low, high, -common.ALLOWED_ACCURACY_LOSS_PTS))
        interval = f"90 % interval {low:+.2f} to {high:+.2f}, n = {len(gains)}"
        if verdicts[-1] == common.CLAIM_OPEN:  # by the normal distribution
            needed = (1.645 * pd.Series(gains).std() / (mean + common.ALLOWED_ACCURACY_LOSS_PTS)) ** 2
            interval += f"; about {needed:.0f} would decide it" * bool(needed < 1000)
        told.append(f"{make_title(row)} at the depth of {make_title(sibling)}: {mean:+.2f} points ({interval})")
    order = (common.CLAIM_FAILS, common.CLAIM_OPEN, common.CLAIM_HOLDS)
    judged, first = next(verdict for verdict in order if verdict in verdicts), study.iloc[0]
    return common.qualify_verdict(judged, f"on validation, rule equal: {'; '.join(told)}", first["not_comparable"])


def draw_results(results: pd.DataFrame) -> Figure:
    """Draw accuracy lost at each depth and the depth that each dataset needs, for one study of `read_results`."""
    within = results["tolerance_pct"].min()
    needed = results[results["tolerance_pct"] == within]
    printed = needed.groupby("row")["paper_depth"].first().sort_values()
    rows, kinds = list(printed.index), needed["architectures"].nunique()
    drawn, axes = plots.make_axes(kinds, 2, 3.9 * kinds, squeeze=False)
    for (left, right), (kind, searches) in zip(axes, needed.groupby("architectures", sort=False), strict=True):
        names, blocks = list(map(make_title, rows)), {x.odn.depth: x.full.depth for x in TABLE_1.values()}
        for row, of_row in searches.groupby("row", sort=False):
            place, beside = rows.index(row), of_row["seed"].rank()
            kind_of_point = [*TABLE_1, *(x for x in rows if x not in TABLE_1)].index(row)  # alike in all figures
            look = {"marker": "osD^vPX<>"[kind_of_point % 9], "color": f"C{kind_of_point}"}
            depths = pd.concat([pd.read_csv(folder / "depths.csv") for folder in of_row["folder"]])
            accuracy = depths.dropna(subset="val_acc_pct").groupby("depth")["val_acc_pct"]
            left.plot(accuracy.mean() - accuracy.mean().max(), label=names[place], **look)
            right.plot(place + 0.15 * (beside - beside.mean()), of_row["depth"], linestyle="none", **look)
            names[place] = names[place].replace("n-", "n-\n").replace(" (own images)", "\n(own)")
            names[place] += f"\n{of_row['best_val_acc_pct'].mean():.1f} %"
            if printed[row] in blocks:
                names[place] += f"\npaper:\n{printed[row]:g} of {blocks[printed[row]]}"
        title = f"One architecture: {plots.architecture_title(kind)}"
        if kind == PAPER_ARCHITECTURES:
            title = kind.capitalize()
            look = {"marker": "D", "linestyle": "none", "color": plots.COLOR_PAPER, "fillstyle": "none"}
            right.plot(printed.to_numpy(), ms=8, mew=1.5, label="paper, Table I", **look)
        left.axhline(-within, color="0.3", linestyle="--", linewidth=1)
        left.xaxis.get_major_locator().set_params(integer=True)
        left.set(xlabel="depth (residual blocks)", ylabel="points less than the best", ylim=(-MOST_LOST_PTS, 0.3))
        left.set_title(f"{title}\nvalidation, means of the seeds (lower ones not shown)", fontsize=9)
        most = searches["of"].max()
        right.set(ylabel=f"depth needed, of {most}", ylim=(0.5, most + 0.5), xlim=(-0.5, len(rows) - 0.5))
        right.set_xticks(range(len(rows)), names, fontsize=8)
        right.set_xlabel("best accuracy, and depth in Table I")
        title = f"Depth within {within:g} points (dashed) of the best\na point per seed, in the paper's order"
        right.set_title(title, fontsize=9)
        right.set_yticks(range(1, most + 1, 1 + most // 9))
    plots.legend_above(drawn, len(rows))
    run = recipes.read_run(needed["folder"].iloc[0])
    architectures = ", ".join(map(plots.architecture_title, sorted(set(needed["architecture"]))))
    return plots.write_caption(drawn, run, common.list_seeds(needed), architectures, varied=("row",))
