"""Notebook 09: do harder datasets get deeper networks (Section IV)? From searches that tried every depth.

The depth that a dataset needs is the smallest one whose validation accuracy is within a tolerance of the best at any
depth. The paper sets its targets likewise: what can be reached, less half a point.
"""

from collections.abc import Iterable
from itertools import permutations, product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from odnlib import recipes
from odnlib.paper import TABLE_1
from studies import common, plots

EVERY_DEPTH = {"target_pct": 100.0, "tolerance_pct": 0.0}  # a goal that no depth meets
VARIED = {"row", "architecture", *EVERY_DEPTH}  # what the settings that the searches of a study share leave out
STUDY_KEYS = ["profile", "rule", "settings"]
COLUMNS = [*STUDY_KEYS, "architectures", "row", "architecture", "seed", "best_val_acc_pct", "of", "paper_depth"]
COLUMNS += ["folder", "not_comparable", "tolerance_pct", "depth"]
TOLERANCES_PCT = (0.5, 1.0, 2.0)  # points; verdicts are taken at the first, which is the released code's
PAPERS = "the paper's architectures"  # as architectures: each row has its own
FEWEST_ROWS = 3  # that make a trend


def planned(
    profile: str, rows: Iterable[str], architectures: Iterable[str], seeds: Iterable[int], overrides: dict
) -> list[recipes.Recipe]:
    """Return the recipes of searches by `equal`: each dataset, architecture ("": its own), seed; or RecipeError."""
    if len(set(rows)) < FEWEST_ROWS:
        raise recipes.RecipeError(f"rows {list(rows)} are fewer than {FEWEST_ROWS}: no trend can be read off them")
    wanted = []
    for row, architecture, seed in product(rows, architectures, seeds):
        settings = overrides | EVERY_DEPTH | ({"architecture": architecture} if architecture else {})
        wanted.append(dict(row=row, profile=profile, rule="equal", seed=seed, **settings))
    # A row whose own architecture is also the common one is searched once.
    return list(dict.fromkeys(recipes.resolve_all(wanted)))


def depth_needed(depths: pd.DataFrame, tolerance_pct: float) -> int:
    """Return the smallest depth within `tolerance_pct` points of the best validation accuracy in depths.csv."""
    near = depths["val_acc_pct"] >= depths["val_acc_pct"].max() - tolerance_pct
    return int(depths.loc[near, "depth"].min())


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return a line per search that tried every depth and per tolerance: the depth needed and the paper's depth.

    A search whose architecture is both its dataset's own and the common one is listed twice.
    """
    runs = common.finished(results_dir, profile, "odn", VARIED)
    if runs.empty:
        return runs
    every = (runs["first_depth"] == 1) & (runs["last_depth"] == runs["max_depth"])
    runs = runs[every & (runs["goal_pct"] >= 100)].rename(columns={"last_depth": "of"})
    runs["paper_depth"] = [TABLE_1[row].odn.depth for row in runs["row"]]
    runs["architectures"] = runs["architecture"]
    own = runs["architecture"] == runs["row"].map(lambda row: TABLE_1[row].architecture)
    runs = pd.concat([runs[own].assign(architectures=PAPERS), runs])
    runs = runs[runs.groupby([*STUDY_KEYS, "architectures"])["row"].transform("nunique") >= FEWEST_ROWS]
    depths = [pd.read_csv(folder / "depths.csv") for folder in runs["folder"]]
    runs["best_val_acc_pct"] = [x["val_acc_pct"].max() for x in depths]
    lines = [runs.assign(tolerance_pct=pct, depth=[depth_needed(x, pct) for x in depths]) for pct in TOLERANCES_PCT]
    order = [*STUDY_KEYS, "architectures", "tolerance_pct", "paper_depth", "seed"]
    return pd.concat(lines)[COLUMNS].sort_values(order, ignore_index=True)


def ordering(lines: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): does the depth needed rise in the paper's order of datasets? For one architecture.

    Kendall's tau between the paper's depths and our means over seeds, with its exact one-sided p in the direction of
    tau: the share of all orders of the datasets whose tau is at least as far in that direction. With p < 0.05 the claim
    holds (tau > 0) or fails, otherwise it is open. Four datasets in perfect order have p = 1/24; three can prove
    nothing.
    """
    rows = lines.groupby("row", sort=False)[["paper_depth", "depth"]].mean()
    taus = [stats.kendalltau(rows["paper_depth"], order).statistic for order in permutations(rows["depth"])]
    tau, sign = taus[0], -1 if taus[0] < 0 else 1
    why = ", ".join(f"{TABLE_1[row].title} {depth:.1f}" for row, depth in rows["depth"].items())
    within = f"{lines['tolerance_pct'].iloc[0]:g} points of the best"
    why += f" (mean depth over {lines['seed'].nunique()} seeds, within {within}): "
    if tau != tau:  # every dataset needs the same
        return common.OPEN, f"{why}no order, {len(rows)} datasets"
    p = sum(sign * (other - tau) > -1e-9 for other in taus) / len(taus)
    why += f"Kendall's tau with the paper's order {tau:+.2f}, p = {p:.2g}, {len(rows)} datasets"
    return (common.OPEN if p >= 0.05 else common.HOLDS if sign > 0 else common.FAILS), why


def verdict(lines: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason) on "harder datasets get deeper networks" at the smallest tolerance, by the study with
    the most evidence. One architecture for all datasets decides, if tried: depths of different ones are not comparable.
    """
    study = common.most_telling(lines[lines["tolerance_pct"] == lines["tolerance_pct"].min()], STUDY_KEYS)
    orderings = {kind: ordering(searches) for kind, searches in study.groupby("architectures", sort=False)}
    decisive = next((kind for kind in orderings if kind != PAPERS), PAPERS)
    why = "; ".join(f"{kind}: {verdict}, {why}" for kind, (verdict, why) in orderings.items())
    first = study.iloc[0]
    return common.qualified(orderings[decisive][0], f"rule {first['rule']}, {why}", first["not_comparable"])


def figure(lines: pd.DataFrame) -> Figure:
    """Draw accuracy lost at each depth and the depth each dataset needs, for one study of `table`."""
    within = lines["tolerance_pct"].min()
    needed = lines[lines["tolerance_pct"] == within]
    rows, kinds = sorted(set(needed["row"]), key=lambda row: TABLE_1[row].odn.depth), needed["architectures"].nunique()
    drawn, axes = plt.subplots(kinds, 2, figsize=(plots.WIDTH, 3 * kinds), layout="constrained", squeeze=False)
    for (left, right), (kind, searches) in zip(axes, needed.groupby("architectures", sort=False), strict=True):
        names = [TABLE_1[row].title for row in rows]
        for row, of_row in searches.groupby("row", sort=False):
            place, beside = rows.index(row), of_row["seed"].rank()
            look = {"marker": "osD^v"[place], "color": plt.get_cmap("viridis")(place / 5)}
            depths = pd.concat([pd.read_csv(folder / "depths.csv") for folder in of_row["folder"]])
            accuracy = depths.dropna(subset="val_acc_pct").groupby("depth")["val_acc_pct"]
            mean, lost = accuracy.mean(), accuracy.agg(["min", "max"]) - accuracy.mean().max()
            left.plot(mean - mean.max(), label=names[place], **look)
            left.fill_between(lost.index, lost["min"], lost["max"].clip(upper=0), color=look["color"], alpha=0.15)
            right.plot(place + 0.15 * (beside - beside.mean()), of_row["depth"], linestyle="none", **look)
            names[place] = names[place].replace("-", "-\n") + f"\nof {mean.index.max()}\nbest {mean.max():.1f} %"
        title = kind.capitalize() if kind == PAPERS else f"One architecture: {plots.network_title(kind)}"
        if kind == PAPERS:
            printed = [TABLE_1[row].odn.depth for row in rows]
            right.plot(printed, "D", color=plots.PAPER, ms=8, fillstyle="none", mew=1.5, label="paper, Table I")
            right.legend(loc="upper left")
        left.axhline(-within, color="0.3", linestyle="--", linewidth=1)
        left.set_yscale("symlog", linthresh=1)
        left.xaxis.get_major_locator().set_params(integer=True)
        left.yaxis.set_major_formatter("{x:g}")
        left.set(xlabel="depth (residual blocks)", ylabel="points less than the best", ylim=(None, 0.2))
        left.set_title(f"{title}\nvalidation: mean, least and most of the seeds", fontsize=9)
        right.set(ylabel="depth needed", ylim=(0, searches["of"].max() + 0.5))
        right.set_xticks(range(len(rows)), names, fontsize=8)
        right.set_title(f"Depth within {within:g} points (dashed) of the best\na point per seed", fontsize=9)
        right.yaxis.get_major_locator().set_params(integer=True)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    run = recipes.read_run(needed["folder"].iloc[0])
    architectures = ", ".join(map(plots.network_title, sorted(set(needed["architecture"]))))
    return plots.caption(drawn, run, common.seeds_of(needed), architectures)


def write(results_dir: Path | str, profile: str) -> None:
    """Write depth_by_dataset.csv for the depth studies of this profile, and a figure for each."""
    common.write_study(results_dir, table(results_dir, profile), "depth_by_dataset", STUDY_KEYS, figure)
