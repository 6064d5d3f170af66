"""Do harder datasets get deeper networks (Section IV)? Read off searches that went through every depth.

The depth that a dataset needs is the smallest one whose validation accuracy comes within a tolerance of the best that
the search saw at any depth. The paper sets its targets likewise: what can be reached, less half a point.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import pandas as pd
from scipy import stats

from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe, RecipeError, resolve
from odnlib.verdict import comparison

EVERY_DEPTH = {"target_pct": 100.0, "tolerance_pct": 0.0}  # a goal that no depth meets
TOLERANCES_PCT = (0.5, 1.0, 2.0)  # points; verdicts are taken at the first, which is the released code's
PAPERS = "the paper's architectures"  # as architectures: each row has its own
COMMON = "resnet18"  # the architecture that all rows are searched with beside their own
FEWEST_ROWS = 3  # that make a trend


def planned(
    profile: str, rows: Iterable[str], architectures: Iterable[str], seeds: Iterable[int], overrides: dict
) -> list[Recipe]:
    """The searches: every row with every one of the architectures; "" is the row's own.

    Raises:
        RecipeError: see `recipes.resolve`.
    """
    if len(set(rows)) < FEWEST_ROWS:
        raise RecipeError(f"rows {list(rows)} are fewer than {FEWEST_ROWS}: no trend can be read off them")
    recipes = {}  # a row whose own architecture is also the common one is searched once
    for row in rows:
        for architecture in architectures:
            wanted = overrides | EVERY_DEPTH | ({"architecture": architecture} if architecture else {})
            recipes |= {resolve(row, "odn", profile, "fast", seed, **wanted): None for seed in seeds}
    return list(recipes)


def settings(tag: str, architecture: str) -> str:
    """A recipe's tag without its architecture: what the searches of one study share."""
    return "-".join(part for part in tag.split("-") if part != architecture)


def depth_needed(depths: pd.DataFrame, tolerance_pct: float) -> int:
    """Smallest depth within the tolerance of the best; `depths` as in a run's depths.csv."""
    tried = depths.dropna(subset="val_acc_pct")
    return int(tried.loc[tried["val_acc_pct"] >= tried["val_acc_pct"].max() - tolerance_pct, "depth"].min())


def searches(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of `comparison.load_runs` that went through every depth, with the settings that they share.

    A row whose own architecture is a common one stands in it twice: once among the paper's, once among those alike.
    """
    if runs.empty:
        return runs
    every = runs[(runs["variant"] == "odn") & (runs["target_pct"] - runs["tolerance_pct"] >= 100)].copy()
    every["settings"] = [settings(*names) for names in zip(every["tag"], every["architecture"], strict=True)]
    own = every["architecture"] == every["row"].map(lambda row: TABLE_1[row].architecture)
    both = pd.concat([every[own].assign(architectures=PAPERS), every.assign(architectures=every["architecture"])])
    rows = both.groupby(["profile", "protocol", "settings", "architectures"])["row"].transform("nunique")
    return both[rows >= FEWEST_ROWS]


def curves(found: pd.DataFrame) -> pd.DataFrame:
    """Best validation accuracy at every depth of every search: architectures, row, seed, depth, val_acc_pct."""
    lines = []
    for run in found.itertuples():
        tried = pd.read_csv(Path(run.folder) / "depths.csv").dropna(subset="val_acc_pct")[["depth", "val_acc_pct"]]
        lines.append(tried.assign(architectures=run.architectures, row=run.row, seed=run.seed))
    return pd.concat(lines, ignore_index=True)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """One line per search of `searches` and tolerance: the depth needed, of how many, beside the paper's."""
    lines = []
    for run in found.itertuples():
        depths = pd.read_csv(Path(run.folder) / "depths.csv")
        same = ("profile", "protocol", "settings", "architectures", "row", "architecture", "seed")
        line = {name: getattr(run, name) for name in same}
        line |= {"best_val_acc_pct": depths["val_acc_pct"].max(), "of": run.last_depth}
        line |= {"paper_depth": TABLE_1[run.row].odn.depth}
        overridden = "-".join(part for part in run.settings.split("-") if not part.startswith(("target", "tol")))
        reason = comparison.why_not_comparable(run._asdict() | {"tag": overridden})  # the goal is part of the question
        for tolerance in TOLERANCES_PCT:
            found_at = {"tolerance_pct": tolerance, "depth": depth_needed(depths, tolerance)}
            lines.append(line | found_at | {"not_comparable": reason})
    order = ["profile", "protocol", "settings", "architectures", "tolerance_pct", "paper_depth", "seed"]
    return pd.DataFrame(lines).sort_values(order, ignore_index=True) if lines else pd.DataFrame()


def verdict(needed: pd.DataFrame) -> tuple[str, str]:
    """Whether the depth needed rises in the paper's order of datasets, and why.

    Kendall's tau between the paper's depths and the means over seeds, with its exact p: the share of all orders of the
    datasets that agree as well with the paper's. Seeds do not count as datasets: four of these in perfect order have
    p = 1/24, three can prove nothing.

    Args:
        needed: the lines of `table` of one architecture and one tolerance.
    """
    rows = needed.groupby("row", sort=False)[["paper_depth", "depth"]].mean()
    tau = stats.kendalltau(rows["paper_depth"], rows["depth"]).statistic
    orders = [stats.kendalltau(rows["paper_depth"], order).statistic for order in permutations(rows["depth"])]
    p = {sign: sum(sign * other >= sign * tau - 1e-9 for other in orders) / len(orders) for sign in (1, -1)}
    said = ", ".join(f"{TABLE_1[row].title} {depth:.1f}" for row, depth in rows["depth"].items())
    said += f" (mean depth over {needed['seed'].nunique()} seeds, within {needed['tolerance_pct'].iloc[0]:g} points of "
    if tau != tau:  # every dataset needs the same
        return "open", f"{said}the best): no order, {len(rows)} datasets"
    sign = 1 if tau >= 0 else -1
    said += f"the best): Kendall's tau with the paper's order {tau:+.2f}, p = {p[sign]:.2g}, {len(rows)} datasets"
    return ("open" if p[sign] >= 0.05 else "holds" if sign > 0 else "does not hold"), said
