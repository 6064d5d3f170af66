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

read_csv_once = functools.cache(pd.read_csv)


def select_for_run(name: str, run: object) -> pd.DataFrame:
    """Return the rows of results/<name>.csv that have the dataset (row), variant and rule of a run: "criteria"
    (quantity, low, high; empty does not bind), "exploratory" (seed, depth of runs that had been seen before) or
    "lost" (seed of judged runs that ended outside, and why, whose files are gone).
    """
    table, keys = read_csv_once(ROOT / "results" / f"{name}.csv"), ["row", "variant", "rule"]
    return table[(table[keys] == [getattr(run, key) for key in keys]).all(axis=1)]


def is_exploratory(run: object, depth: int | None = None) -> bool:
    """Return whether a run's seed (by rule `equal`: at this depth) had been seen: it is told and not judged."""
    seen = select_for_run("exploratory", run)
    return ((seen["seed"] == run.seed) & (seen["depth"].isna() | (seen["depth"] == depth))).any()


def list_test_accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the test accuracies, in %, of runs that differ only in their seed and of lost ones of their kind as a
    table: seed, test_acc_pct, told ("" or in words that it is not judged, or lost).
    """
    first = next(runs.itertuples())
    judged = not first.not_comparable and bool(first.carry_best or first.rule != "released")  # or exploratory
    lost = select_for_run("lost", first)[: None if judged else 0].assign(told="lost")
    kept = runs[~runs["seed"].isin(lost["seed"])]
    told = ["not judged" if judged and is_exploratory(x, x.depth) else "" for x in kept.itertuples()]
    return pd.concat([kept.assign(told=told), lost])[["seed", "test_acc_pct", "told"]].sort_values("seed")


def describe_n(runs: pd.DataFrame) -> str:
    """Return the number of runs that differ in their seed as text, e.g. "n = 2, 1 not judged"."""
    told = list_test_accuracies(runs)["told"]
    counts = [f", {count} {words}" for words, count in told[told != ""].value_counts().items()]
    return f"n = {len(told)}" + "".join(counts) * (len(told) > 1)


def measure_criteria_quantities(run: object) -> dict[str, float]:
    """Return what criteria speak of, by name, from a run's folder: depth, accuracies (%), epochs, warm-up losses."""
    epochs = pd.read_csv(run.folder / "epochs.csv")
    warmup, trained = (epochs[(epochs["stage"] == "warmup") == warming] for warming in (True, False))
    depths = pd.read_csv(run.folder / "depths.csv").set_index("depth")
    values = {"depth": run.depth, "test_acc_pct": run.test_acc_pct, "epochs_total": len(trained)}
    values |= {f"epochs_depth{depth}": count for depth, count in trained["depth"].value_counts().items()}
    values |= {f"val_acc_pct_depth{depth}": value for depth, value in depths["val_acc_pct"].items()}
    return values | {f"warmup_loss_epoch{x.epoch}": x.train_loss for x in warmup.itertuples()}


def list_missed_criteria(run: object) -> list[str]:
    """Return in words the quantities of a run that lie outside the criteria for it, or are missing (nan)."""
    criteria = select_for_run("criteria", run).fillna({"low": float("-inf"), "high": float("inf")})
    criteria["value"] = criteria["quantity"].map(measure_criteria_quantities(run)).astype(float)
    missed = criteria[~criteria["value"].between(criteria["low"], criteria["high"])].itertuples()
    return [f"{x.quantity} {x.value:g}, not {x.low:g} to {x.high:g}" for x in missed]


def grade_procedure(runs: pd.DataFrame) -> str:
    """Return the grade of runs by `released` or `printed` at full width, one per seed: what most judged ones are.
    Lost ones (`select_for_run`) ended outside the criteria: they count, and a repetition does not replace them.
    """
    first = next(runs.itertuples())
    if first.rule == "released" and first.variant == "odn" and not first.carry_best:
        return f"compared, not judged, n = {len(runs)}"
    judged = {run.seed: list_missed_criteria(run) for run in runs.itertuples() if not is_exploratory(run)}
    if not judged:
        return f"exploratory, n = {len(runs)}"
    judged |= {lost.seed: [lost.why] for lost in select_for_run("lost", first).itertuples()}
    inside = [*judged.values()].count([])
    wrong = "; ".join(f"seed {seed}: {', '.join(texts)}" for seed, texts in sorted(judged.items()) if texts)
    grade = "procedure reproduced" if inside > len(judged) / 2 else "not reproduced"
    return f"{grade}, {inside} of {len(judged)} judged inside" + f" ({wrong})" * bool(wrong)


def list_accuracy_problems(runs: pd.DataFrame) -> list[str]:
    """Return in words how the mean test accuracy of a dataset's runs misses the criterion for the paper's rule."""
    criteria = select_for_run("criteria", next(runs.itertuples())._replace(rule="released")).set_index("quantity")
    low, high = criteria.loc["test_acc_pct", ["low", "high"]]
    return [] if low <= runs["test_acc_pct"].mean() <= high else [f"test accuracy not {low:g} to {high:g}"]


def grade_accuracy(runs: pd.DataFrame) -> str:
    """Return the grade of the mean test accuracy of a dataset's runs alone."""
    return f"accuracy {'not ' if list_accuracy_problems(runs) else ''}corroborated, n = {len(runs)}"


def read_depths_at_equal_training(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of every depth that `equal` trained at width 64 on real images, one row per seed: row, depth,
    times (1: for the usual epochs, 2: for twice as many), val_acc_pct, goal_pct, met_goal, exploratory.
    """
    tables = [pd.DataFrame(columns=["row", "depth", "times", "val_acc_pct", "goal_pct", "met_goal", "exploratory"])]
    for run in runs.query("rule == 'equal' and variant == 'odn' and width == 64 and not embedded").itertuples():
        tried = pd.read_csv(run.folder / "depths.csv").dropna(subset="val_acc_pct")[["depth", "val_acc_pct"]]
        times = run.depth_epochs / EPOCHS_OF_DATASET[run.row]  # no longer one had begun before the criteria
        seen = [times <= 1 and is_exploratory(run, depth) for depth in tried["depth"]]
        met = tried["val_acc_pct"].round(run.search_decimals) >= run.goal_pct  # rounded, as a search sees it
        about = {"row": run.row, "times": times, "goal_pct": run.goal_pct}
        tables.append(tried.assign(**about, met_goal=met, exploratory=seen))
    return pd.concat(tables)


def average_depths_at_equal_training(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the means of `read_depths_at_equal_training` over n seeds: row, depth, times, val_acc_pct, goal_pct, n.
    Exploratory ones are left out.
    """
    trained = read_depths_at_equal_training(runs)
    networks = trained[~trained["exploratory"].astype(bool)].groupby(["row", "depth", "times"])
    return networks[["val_acc_pct", "goal_pct"]].mean().assign(n=networks.size()).reset_index()


def grade_depth_and_accuracy(chosen: pd.DataFrame, every: pd.DataFrame) -> str:
    """Return the grade of one dataset's searches by `equal`: `chosen`, whose depth was tested, of `every` run. The
    depth found is believed if the depth below misses the goal also when it is trained for twice as many epochs.
    """
    first, n, found = next(chosen.itertuples()), len(chosen), chosen["depth"].mean()
    trained, printed = average_depths_at_equal_training(every[every["row"] == first.row]), TABLE_1[first.row].odn.depth
    below = trained[(trained["depth"] == found - 1) & (trained["times"] == 2)]["val_acc_pct"].max()
    problems = [] if found == printed else [f"depth {found:g}, {first.size_mb:.2f} MB, not {printed}"]
    if found > 1 and pd.isna(below):
        problems.append(f"depth {found - 1:g} has not been trained for twice as long yet")
    elif round(below, first.search_decimals) >= first.goal_pct:
        once = trained[(trained["depth"] == found - 1) & (trained["times"] == 1)].to_dict("records")
        misses = [
            f"misses {x['goal_pct']:g} % by {x['goal_pct'] - x['val_acc_pct']:.2f} (n = {x['n']}) and " for x in once
        ]
        problems.append(f"depth {found - 1:g} {''.join(misses)}meets it in twice the epochs: {below:.2f} %")
    problems += list_accuracy_problems(chosen)
    grade = f"not corroborated, n = {n} ({'; '.join(problems)})"
    return grade if problems else f"depth and accuracy corroborated, n = {n}"


def grade_runs(runs: pd.DataFrame, every: pd.DataFrame) -> str:
    """Return the grade, as text, of runs that differ only in their seed, given `every` run (`read_finished_runs`)."""
    first, n = runs.iloc[0], len(runs)
    if first["not_comparable"]:
        return f"{'an illustration' if first['embedded'] else 'a trend'}, n = {n}"
    if first["rule"] in ("released", "printed"):
        return grade_procedure(runs)
    if first["variant"] == "full":
        return grade_accuracy(runs)
    bound = f"upper bound of the depth, n = {n}"
    return grade_depth_and_accuracy(runs, every) if first["rule"] == "equal" else bound
