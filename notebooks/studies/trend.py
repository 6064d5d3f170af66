"""Do harder datasets get deeper networks (Section IV)? Read off searches that went through every depth.

The depth that a dataset needs is the smallest one whose validation accuracy comes within a tolerance of the best that
the search saw at any depth. The paper sets its targets likewise: what can be reached, less half a point.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from odnlib import plots, recipes
from odnlib.paper import TABLE_1
from studies import common

EVERY_DEPTH = {"target_pct": 100.0, "tolerance_pct": 0.0}  # a goal that no depth meets
VARIED = {"row", "architecture", *EVERY_DEPTH}  # what the settings that the searches of a study share leave out
STUDY = ["profile", "rule", "settings"]
TOLERANCES_PCT = (0.5, 1.0, 2.0)  # points; verdicts are taken at the first, which is the released code's
PAPERS = "the paper's architectures"  # as architectures: each row has its own
FEWEST_ROWS = 3  # that make a trend


def planned(
    profile: str, rows: Iterable[str], architectures: Iterable[str], seeds: Iterable[int], overrides: dict
) -> list[recipes.Recipe]:
    """The searches by rule `equal`: every row with every one of the architectures; "" is the row's own.

    Raises:
        RecipeError: see `recipes.resolve`.
    """
    if len(set(rows)) < FEWEST_ROWS:
        raise recipes.RecipeError(f"rows {list(rows)} are fewer than {FEWEST_ROWS}: no trend can be read off them")
    wanted = []
    for row in rows:
        for architecture in architectures:
            settings = overrides | EVERY_DEPTH | ({"architecture": architecture} if architecture else {})
            wanted += [dict(row=row, profile=profile, rule="equal", seed=seed, **settings) for seed in seeds]
    # A row whose own architecture is also the common one is searched once.
    return list(dict.fromkeys(recipes.resolve_all(wanted)))


def depth_needed(depths: pd.DataFrame, tolerance_pct: float) -> int:
    """Smallest depth within the tolerance of the best; `depths` as in a run's depths.csv."""
    tried = depths.dropna(subset="val_acc_pct")
    return int(tried.loc[tried["val_acc_pct"] >= tried["val_acc_pct"].max() - tolerance_pct, "depth"].min())


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """One line per tolerance and search that went through every depth: the depth needed, of how many, beside the
    paper's. Empty without `FEWEST_ROWS` of them that are alike.

    A row whose own architecture is a common one stands in it twice: once among the paper's, once among those alike.
    """
    runs, lines = common.finished(results_dir, profile, "odn"), []
    if runs.empty:
        return runs
    runs = runs[runs["goal_pct"] >= 100]
    runs = runs.assign(settings=common.shared(runs, VARIED), architectures=runs["architecture"])
    own = runs["architecture"] == runs["row"].map(lambda row: TABLE_1[row].architecture)
    runs = pd.concat([runs[own].assign(architectures=PAPERS), runs])
    rows = runs.groupby([*STUDY, "architectures"])["row"].transform("nunique")
    for run in runs[rows >= FEWEST_ROWS].itertuples():
        depths = pd.read_csv(run.folder / "depths.csv")
        line = {name: getattr(run, name) for name in [*STUDY, "architectures", "row", "architecture", "seed"]}
        line |= {"best_val_acc_pct": depths["val_acc_pct"].max(), "of": run.last_depth}
        line |= {"paper_depth": TABLE_1[run.row].odn.depth, "folder": run.folder}
        line |= {"not_comparable": common.why_not_comparable(run._asdict(), VARIED)}
        lines += [line | {"tolerance_pct": x, "depth": depth_needed(depths, x)} for x in TOLERANCES_PCT]
    order = [*STUDY, "architectures", "tolerance_pct", "paper_depth", "seed"]
    return pd.DataFrame(lines).sort_values(order, ignore_index=True) if lines else pd.DataFrame()


def ordering(lines: pd.DataFrame) -> tuple[str, str]:
    """Whether the depth needed rises in the paper's order of datasets, and why.

    Kendall's tau between the paper's depths and the means over seeds, with its exact p: the share of all orders of the
    datasets that agree as well with the paper's. Seeds do not count as datasets: four of these in perfect order have
    p = 1/24, three can prove nothing.

    Args:
        lines: those of `table` of one architecture and one tolerance.
    """
    rows = lines.groupby("row", sort=False)[["paper_depth", "depth"]].mean()
    tau = stats.kendalltau(rows["paper_depth"], rows["depth"]).statistic
    orders = [stats.kendalltau(rows["paper_depth"], order).statistic for order in permutations(rows["depth"])]
    p = {sign: sum(sign * other >= sign * tau - 1e-9 for other in orders) / len(orders) for sign in (1, -1)}
    why = ", ".join(f"{TABLE_1[row].title} {depth:.1f}" for row, depth in rows["depth"].items())
    within = f"{lines['tolerance_pct'].iloc[0]:g} points of the best"
    why += f" (mean depth over {lines['seed'].nunique()} seeds, within {within}): "
    if tau != tau:  # every dataset needs the same
        return common.OPEN, f"{why}no order, {len(rows)} datasets"
    sign = 1 if tau >= 0 else -1
    why += f"Kendall's tau with the paper's order {tau:+.2f}, p = {p[sign]:.2g}, {len(rows)} datasets"
    return (common.OPEN if p[sign] >= 0.05 else common.HOLDS if sign > 0 else common.FAILS), why


def verdict(lines: pd.DataFrame) -> tuple[str, str]:
    """The paper's claim by the strictest tolerance of the most telling study of `table`: one architecture for all rows
    decides where there is one, since depths of different ones are not counted in the same blocks.
    """
    strictest = lines[lines["tolerance_pct"] == lines["tolerance_pct"].min()]
    study = common.most_telling(strictest, STUDY)
    orderings = {kind: ordering(searches) for kind, searches in study.groupby("architectures", sort=False)}
    decisive = next((kind for kind in orderings if kind != PAPERS), PAPERS)
    why = "; ".join(f"{kind}: {verdict}, {why}" for kind, (verdict, why) in orderings.items())
    why = f"rule {study['rule'].iloc[0]}, {why}"
    return common.at_scale(orderings[decisive][0], why, study["not_comparable"].iloc[0])


def figure(lines: pd.DataFrame) -> Figure:
    """What each further depth gains and which depth a dataset needs; lines of `table`, of one study."""
    needed = lines[lines["tolerance_pct"] == lines["tolerance_pct"].min()]
    kinds, within = list(dict.fromkeys(needed["architectures"])), needed["tolerance_pct"].iloc[0]
    drawn, axes = plt.subplots(len(kinds), 2, figsize=(11, 4.2 * len(kinds)), layout="constrained", squeeze=False)
    rows = list(dict.fromkeys(needed.sort_values("paper_depth")["row"]))
    for (left, right), kind in zip(axes, kinds, strict=True):
        searches = needed[needed["architectures"] == kind]
        names = [draw_row(left, right, place, row, searches[searches["row"] == row]) for place, row in enumerate(rows)]
        title = PAPERS.capitalize() if kind == PAPERS else f"One architecture: {kind}"
        if kind == PAPERS:
            right.plot(range(len(rows)), [TABLE_1[row].odn.depth for row in rows], "_", color="0.1", ms=26, mew=2)
            right.plot([], [], "_", color="0.1", ms=14, mew=2, label="paper, Table I")
            right.legend(loc="upper left", fontsize=9)
        left.axhline(-within, color="0.3", linestyle="--", linewidth=1)
        left.set_yscale("symlog", linthresh=1)
        left.yaxis.set_major_formatter("{x:g}")
        left.set(xlabel="depth (residual blocks)", ylabel="points less than the best", ylim=(None, 0.2))
        left.set_title(f"{title}, validation, seeds' mean; dashed: -{within:g}", fontsize=11)
        right.set(xticks=range(len(rows)), ylabel="depth needed", ylim=(0, searches["of"].max() + 0.5))
        right.set_xticklabels(names, fontsize=9)
        right.set_title(f"Depth within {within:g} points of the best; a point per seed", fontsize=11)
        right.yaxis.get_major_locator().set_params(integer=True)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    run, architectures = recipes.read(needed["folder"].iloc[0]), ", ".join(sorted(set(needed["architecture"])))
    return plots.caption(drawn, run, common.seeds_of(needed), architectures)


def draw_row(left: Axes, right: Axes, place: int, row: str, searches: pd.DataFrame) -> str:
    """The curve and the depths of one dataset; its name for the axis."""
    title = TABLE_1[row].title
    if searches.empty:
        return title
    depths = pd.concat([pd.read_csv(folder / "depths.csv") for folder in searches["folder"]])
    mean = depths.dropna(subset="val_acc_pct").groupby("depth")["val_acc_pct"].mean()
    color, marker = sns.color_palette("colorblind")[place], "osD^v"[place]
    left.plot(mean - mean.max(), f"{marker}-", color=color, label=title)
    beside = [place + 0.15 * (seed - (len(searches) - 1) / 2) for seed in range(len(searches))]
    right.plot(beside, searches["depth"], marker, color=color)
    return f"{title}\nof {mean.index.max()}\nbest {mean.max():.1f} %"


def write(results_dir: Path | str, profile: str) -> None:
    """A table of all studies of this profile, and a figure for each."""
    common.write_studies(results_dir, table(results_dir, profile), "depth_by_dataset", STUDY, figure)
