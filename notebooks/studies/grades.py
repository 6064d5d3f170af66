"""How far a measurement goes, in three grades that are never mixed.

*Structure reproduced*: sizes and MACs, which no training decides. *Depth and accuracy corroborated*: `equal` reached
them; the paper's method was not used. *Procedure reproduced*: the paper's rule, to its end, at full width on the real
images, inside criteria committed before the run began (`results/criteria.csv`, explained in `results/notes.md`).
"""

import functools

import pandas as pd

from odnlib.files import ROOT
from odnlib.paper import TABLE_1
from odnlib.presets import EPOCHS_OF_DATASET

STRUCTURE, UPPER_BOUND = "structure reproduced", "upper bound of the depth"
CORROBORATED, REPRODUCED, NOT_REPRODUCED = "depth and accuracy corroborated", "procedure reproduced", "not reproduced"
KEYS = ["row", "variant", "rule"]


@functools.cache
def table(name: str) -> pd.DataFrame:
    """criteria: quantity, low, high (an empty bound does not bind); exploratory: runs begun before there were any."""
    return pd.read_csv(ROOT / "results" / f"{name}.csv")


def of_kind(name: str, run: object) -> pd.DataFrame:
    """The lines of `table` for a run's row, variant and rule."""
    lines = table(name)
    return lines[(lines[KEYS] == [getattr(run, key) for key in KEYS]).all(axis=1)]


def exploratory(run: object, depth: int | None = None) -> bool:
    """Whether this seed (of `equal`: at this depth) was seen before the criteria were committed."""
    lines = of_kind("exploratory", run)
    return ((lines["seed"] == run.seed) & (lines["depth"].isna() | (lines["depth"] == depth))).any()


def quantities(run: object) -> dict[str, float]:
    """What criteria speak of: depth, accuracies in %, epochs (a depth with its fine-tuning), losses of the warm-up."""
    epochs = pd.read_csv(run.folder / "epochs.csv")
    warmup, trained = (epochs[(epochs["stage"] == "warmup") == warming] for warming in (True, False))
    depths = pd.read_csv(run.folder / "depths.csv").set_index("depth")
    values = {"depth": run.depth, "test_acc_pct": run.test_acc_pct, "epochs_total": len(trained)}
    values |= {f"epochs_depth{depth}": count for depth, count in trained["depth"].value_counts().items()}
    values |= {f"val_acc_pct_depth{depth}": value for depth, value in depths["val_acc_pct"].items()}
    return values | {f"warmup_loss_epoch{line.epoch}": line.train_loss for line in warmup.itertuples()}


def outside(run: object) -> list[str]:
    """The quantities of a run that lie outside the criteria for its kind, or are missing (nan), in words."""
    criteria = of_kind("criteria", run).fillna({"low": float("-inf"), "high": float("inf")})
    lines = criteria.assign(value=criteria["quantity"].map(quantities(run)).astype(float))
    lines = lines[~lines["value"].between(lines["low"], lines["high"])].itertuples()
    return [f"{line.quantity} {line.value:g}, not {line.low:g} to {line.high:g}" for line in lines]


def procedure(runs: pd.DataFrame) -> str:
    """The grade of full-width runs by `released` or `printed`, one line per seed: what most of the judged ones are."""
    first = next(runs.itertuples())
    if first.rule == "released" and first.variant == "odn" and not first.carry_best:
        return f"compared, not judged, n = {len(runs)}"
    judged = [outside(run) for run in runs.itertuples() if not exploratory(run)]
    if not judged:
        return f"exploratory, n = {len(runs)}"
    inside, wrong = judged.count([]), "; ".join(line for lines in judged for line in lines)
    grade = REPRODUCED if inside > len(judged) / 2 else NOT_REPRODUCED
    return f"{grade}, {inside} of {len(judged)}" + f" ({wrong})" * bool(wrong)


def wrong_accuracy(runs: pd.DataFrame) -> list[str]:
    """What is wrong with the mean test accuracy of runs by our own rules; empty inside the criterion for the row."""
    criteria = of_kind("criteria", next(runs.itertuples())._replace(rule="released")).set_index("quantity")
    low, high = criteria.loc["test_acc_pct", ["low", "high"]]
    return [] if low <= runs["test_acc_pct"].mean() <= high else [f"test accuracy not {low:g} to {high:g}"]


def depths_at_equal_training(parts: pd.DataFrame) -> pd.DataFrame:
    """Return every depth that `equal` trained at full width, means over n seeds: row, depth, times (1: for the usual
    epochs, 2: for twice as many), val_acc_pct, n, goal_pct. Exploratory ones are left out.
    """
    tables = [pd.DataFrame(columns=["row", "depth", "times", "val_acc_pct", "goal_pct"])]
    for run in parts.query("rule == 'equal' and variant == 'odn' and width == 64 and not embedded").itertuples():
        tried = pd.read_csv(run.folder / "depths.csv").dropna(subset="val_acc_pct")[["depth", "val_acc_pct"]]
        times = run.depth_epochs / EPOCHS_OF_DATASET[run.row]  # no longer one had begun before the criteria
        tried = tried.loc[[times > 1 or not exploratory(run, depth) for depth in tried["depth"]]]
        tables.append(tried.assign(row=run.row, times=times, goal_pct=run.goal_pct))
    lines = pd.concat(tables).groupby(["row", "depth", "times"])
    return lines.mean().assign(n=lines.size()).reset_index()


def depth_and_accuracy(chosen: pd.DataFrame, parts: pd.DataFrame) -> str:
    """The grade of a row at equal training: `chosen`, the runs whose depth was tested; `parts`, all that were trained.

    The depth found is believed if the depth below misses the goal also when it is trained for twice as many epochs.
    """
    first, n, found = next(chosen.itertuples()), len(chosen), chosen["depth"].mean()
    trained = depths_at_equal_training(parts[parts["row"] == first.row])
    below = trained[(trained["depth"] == found - 1) & (trained["times"] == 2)]["val_acc_pct"].max()
    problems = [] if found == TABLE_1[first.row].odn.depth else [f"depth {found:g}, not {TABLE_1[first.row].odn.depth}"]
    if found > 1 and pd.isna(below):
        problems.append(f"depth {found - 1:g} has not been trained for twice as long yet")
    elif round(below, first.search_decimals) >= first.goal_pct:
        problems.append(f"depth {found - 1:g} meets the goal when trained for twice as long")
    problems += wrong_accuracy(chosen)
    return f"not corroborated, n = {n} ({'; '.join(problems)})" if problems else f"{CORROBORATED}, n = {n}"


def grade(runs: pd.DataFrame, parts: pd.DataFrame) -> str:
    """The grade of runs that differ only in their seed."""
    first, n = runs.iloc[0], len(runs)
    if first["not_comparable"]:
        return f"{'an illustration' if first['embedded'] else 'a trend'}, n = {n}"
    if first["rule"] in ("released", "printed"):
        return procedure(runs)
    if first["variant"] == "full":
        return f"accuracy {'not ' if wrong_accuracy(runs) else ''}corroborated, n = {n}"
    return depth_and_accuracy(runs, parts) if first["rule"] == "equal" else f"{UPPER_BOUND}, n = {n}"
