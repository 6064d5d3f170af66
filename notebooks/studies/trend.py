"""Do harder datasets get deeper networks (Section IV)? Read off searches that went through every depth.

The depth that a dataset needs is the smallest one whose validation accuracy comes within a tolerance of the best that
the search saw at any depth. The paper sets its targets likewise: what can be reached, less half a point.
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
    """The searches by rule `equal`: every row with every architecture ("": the row's own); RecipeError as `resolve`."""
    if len(set(rows)) < FEWEST_ROWS:
        raise recipes.RecipeError(f"rows {list(rows)} are fewer than {FEWEST_ROWS}: no trend can be read off them")
    wanted = []
    for row, architecture, seed in product(rows, architectures, seeds):
        settings = overrides | EVERY_DEPTH | ({"architecture": architecture} if architecture else {})
        wanted.append(dict(row=row, profile=profile, rule="equal", seed=seed, **settings))
    # A row whose own architecture is also the common one is searched once.
    return list(dict.fromkeys(recipes.resolve_all(wanted)))


def depth_needed(depths: pd.DataFrame, tolerance_pct: float) -> int:
    """Smallest depth within the tolerance of the best; `depths` as in a run's depths.csv."""
    near = depths["val_acc_pct"] >= depths["val_acc_pct"].max() - tolerance_pct
    return int(depths.loc[near, "depth"].min())


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """One line per tolerance and search that went through every depth, of `FEWEST_ROWS` or more that are alike: the
    depth needed, of how many, beside the paper's. What has a row's own and a common architecture stands in it twice.
    """
    runs = common.finished(results_dir, profile, "odn", VARIED)
    if runs.empty:
        return runs
    runs = runs[runs["goal_pct"] >= 100].rename(columns={"last_depth": "of"})
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
    """Whether the depth needed rises in the paper's order of datasets, and why; of one architecture and tolerance.

    Kendall's tau between the paper's depths and the means over seeds, with its exact p: the share of all orders of the
    datasets that agree as well with the paper's. Seeds do not count as datasets: four of these in perfect order have
    p = 1/24, three can prove nothing.
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
    """The paper's claim by the strictest tolerance of the most telling study of `table`: one architecture for all rows
    decides where there is one, since depths of different ones are not counted in the same blocks.
    """
    study = common.most_telling(lines[lines["tolerance_pct"] == lines["tolerance_pct"].min()], STUDY_KEYS)
    orderings = {kind: ordering(searches) for kind, searches in study.groupby("architectures", sort=False)}
    decisive = next((kind for kind in orderings if kind != PAPERS), PAPERS)
    why = "; ".join(f"{kind}: {verdict}, {why}" for kind, (verdict, why) in orderings.items())
    first = study.iloc[0]
    return common.qualified(orderings[decisive][0], f"rule {first['rule']}, {why}", first["not_comparable"])


def figure(lines: pd.DataFrame) -> Figure:
    """What each further depth gains and which depth a dataset needs; lines of `table`, of one study."""
    within = lines["tolerance_pct"].min()
    needed = lines[lines["tolerance_pct"] == within]
    rows, kinds = sorted(set(needed["row"]), key=lambda row: TABLE_1[row].odn.depth), needed["architectures"].nunique()
    drawn, axes = plt.subplots(kinds, 2, figsize=(11, 4.2 * kinds), layout="constrained", squeeze=False)
    for (left, right), (kind, searches) in zip(axes, needed.groupby("architectures", sort=False), strict=True):
        names = [TABLE_1[row].title for row in rows]
        for row, of_row in searches.groupby("row", sort=False):
            place, beside = rows.index(row), of_row["seed"].rank()
            look = {"marker": "osD^v"[place], "color": f"C{place}"}
            depths = pd.concat([pd.read_csv(folder / "depths.csv") for folder in of_row["folder"]])
            mean = depths.groupby("depth")["val_acc_pct"].mean().dropna()
            left.plot(mean - mean.max(), label=names[place], **look)
            right.plot(place + 0.15 * (beside - beside.mean()), of_row["depth"], linestyle="none", **look)
            names[place] += f"\nof {mean.index.max()}\nbest {mean.max():.1f} %"
        title = kind.capitalize() if kind == PAPERS else f"One architecture: {kind}"
        if kind == PAPERS:
            printed = [TABLE_1[row].odn.depth for row in rows]
            right.plot(printed, "_", color="0.1", ms=26, mew=2, label="paper, Table I")
            right.legend(loc="upper left", fontsize=9, markerscale=14 / 26)
        left.axhline(-within, color="0.3", linestyle="--", linewidth=1)
        left.set_yscale("symlog", linthresh=1)
        left.yaxis.set_major_formatter("{x:g}")
        left.set(xlabel="depth (residual blocks)", ylabel="points less than the best", ylim=(None, 0.2))
        left.set_title(f"{title}, validation, seeds' mean; dashed: -{within:g}", fontsize=11)
        right.set(ylabel="depth needed", ylim=(0, searches["of"].max() + 0.5))
        right.set_xticks(range(len(rows)), names, fontsize=9)
        right.set_title(f"Depth within {within:g} points of the best; a point per seed", fontsize=11)
        right.yaxis.get_major_locator().set_params(integer=True)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    run, architectures = recipes.read_run(needed["folder"].iloc[0]), ", ".join(sorted(set(needed["architecture"])))
    return plots.caption(drawn, run, common.seeds_of(needed), architectures)


def write(results_dir: Path | str, profile: str) -> None:
    """A table of all studies of this profile, and a figure for each."""
    common.write_studies(results_dir, table(results_dir, profile), "depth_by_dataset", STUDY_KEYS, figure)
