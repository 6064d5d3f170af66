"""Compares measurements with the paper: every number of Table I with a verdict, computed from the run folders."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd

from odnlib import metrics, models
from odnlib.architectures import ARCHITECTURES
from odnlib.data import DATASETS
from odnlib.paper import TABLE_1
from odnlib.presets import SETTINGS_OF_PROFILE
from studies import common, grades

CELL_COLUMNS = ["row", "variant", "cell"]  # what tells the numbers of Table I apart
GROUP_COLUMNS = ["row", "variant", "profile", "rule", "label"]  # what the seeds of a mean have in common
COMPARISON_COLUMNS = [*CELL_COLUMNS, *GROUP_COLUMNS[2:], "paper", "measured", "std", "n", "grade", "verdict", "why"]
PRINTED_CELLS = ("depth", "params_m", "size_mb", "size_reduction_pct", "macs_m", "test_acc_pct")
FOUND_CELLS = ("found_params_m", "found_size_mb", "found_macs_m", "found_size_reduction_pct")  # at the depth found
CELLS_DECIDED_BY_TRAINING = {"full": ("test_acc_pct",), "odn": ("test_acc_pct", "depth", *FOUND_CELLS)}
AVERAGED_COLUMNS = ["depth", "params_m", "size_mb", "macs_m", "test_acc_pct", "epochs", "train_tmacs"]
RUN_COLUMNS = [*GROUP_COLUMNS, *AVERAGED_COLUMNS, "seed", "folder", "met_goal", "goal_pct", "not_comparable"]
RUN_COLUMNS += ["architecture", "last_depth"]
RELATIVE_SIZE_TOLERANCE = 0.003  # the container's overhead differs by version (measured 10 to 30 kB)
# Printed figures that repeat those of a network with other classes or images, or (None) that differ in a digit.
PAPER_SLIPS = {
    ("emnist", "full", "params_m"): ("the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    ("emnist", "full", "macs_m"): ("the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    ("emnist", "odn", "macs_m"): ("one digit differs", None),
    ("svhn", "full", "macs_m"): ("the figure of 28x28x1 images, SVHN has 32x32x3", {"image_shape": (1, 28, 28)}),
}


def list_profiles_from(profile: str) -> list[str]:
    """Return the names of a profile and of those with more work (order: smoke, reduced, quick, paper)."""
    return list(SETTINGS_OF_PROFILE)[list(SETTINGS_OF_PROFILE).index(profile) :]


def read_runs_from_profile(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return the `common.read_finished_runs` of a profile and of those with more work, with params_m and
    size_reduction_pct. `label` also names a training version after the first, and no number of threads, which only
    changes the rounding. Without runs: empty, `RUN_COLUMNS`.
    """
    tables = [common.read_finished_runs(results_dir, name) for name in list_profiles_from(profile)]
    runs = pd.concat(tables, ignore_index=True)
    if runs.empty:
        return pd.DataFrame(columns=RUN_COLUMNS, dtype=float)
    runs["size_reduction_pct"] = 100 * (1 - runs["size_mb"] / runs["full_size_mb"])
    labels = [common.describe_overrides(run, {"threads"}) for run in runs.itertuples()]
    return runs.assign(label=labels, params_m=runs["params"] / 1e6)


def select_table_1_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the `runs` that answer Table I: its architecture, full depth where variant is full, goal below 100 %."""
    own = runs["architecture"] == runs["row"].map(lambda row: TABLE_1[row].architecture)
    whole = runs["last_depth"] == runs["row"].map(lambda row: TABLE_1[row].full.depth)
    return runs[own & (whole | (runs["variant"] == "odn")) & (runs["goal_pct"] < 100)]


def make_cell_record(row: str, variant: str, cell: str, **measured: object) -> dict:
    """Return a record of comparison.csv: the paper's value of a cell of Table I, and what was `measured`, if any."""
    printed, name = TABLE_1[row], cell.removeprefix("found_")
    paper = getattr(printed if name == "size_reduction_pct" else getattr(printed, variant), name)
    about = {"row": row, "variant": variant, "cell": cell} | dict.fromkeys([*GROUP_COLUMNS[2:], "grade"], "")
    return about | {"paper": paper, "n": 0, "verdict": "not measured", "why": "no run yet"} | measured


@functools.cache
def measure_table_1_network(row: str, variant: str, **other: object) -> dict[str, float]:
    """Return params_m, size_mb, macs_m of a network of Table I; `other` replaces fields of its `Dataset`."""
    dataset = dataclasses.replace(DATASETS[row], **other)
    whole = models.build(TABLE_1[row].architecture, dataset.image_shape[0], dataset.classes)
    figures = metrics.measure_size_and_macs(whole.truncate(getattr(TABLE_1[row], variant).depth), dataset.image_shape)
    return {"params_m": figures.pop("params") / 1e6, **figures}


def judge_agreement(paper: float, measured: float, tolerance: float, more_is_better: bool = True) -> str:
    """Return how a value agrees with the paper's: equal (two decimals), close (within tolerance), better or worse."""
    if f"{measured:.2f}" == f"{paper:.2f}":
        return "equal"
    if abs(measured - paper) < tolerance:
        return "close"
    return "better" if (measured > paper) == more_is_better else "worse"


def accuracy_tolerance_pts(paper_pct: float, std: float, n: int, test_images: int) -> float:
    """Return the half width, in points, of the 95 % interval of the paper's single test accuracy minus the mean of n
    runs with standard deviation `std` (nan for one). One run's variance is the binomial one of the test set, plus, for
    n > 1, that between seeds. That both are tested on the same images is ignored, which favours `close`.
    """
    p = paper_pct / 100
    seeds = 0.0 if math.isnan(std) else std**2
    return 1.96 * math.sqrt(2 * 1e4 * p * (1 - p) / test_images + seeds * (1 + 1 / n))


def judge_structure(row: str, variant: str, cell: str, paper: float, measured: float) -> tuple[str, str]:
    """Return (verdict, reason) for a cell of Table I that needs no training: `judge_agreement`, or "paper's slip" if
    the network of `PAPER_SLIPS` bears that out.
    """
    verdict = judge_agreement(paper, measured, RELATIVE_SIZE_TOLERANCE * paper, more_is_better=cell.endswith("_pct"))
    if verdict == "equal":
        return verdict, "same printed digits"
    because, network = PAPER_SLIPS.get((row, variant, cell), ("", None))
    digits = [f"{value:.2f}" for value in (paper, measured)]
    if network and f"{measure_table_1_network(row, variant, **network)[cell]:.2f}" == digits[0]:
        return "paper's slip", f"{digits[0]} printed is {because} (measured: {digits[1]})"
    if because and not network and sum(a != b for a, b in zip(*digits, strict=False)) == 1:
        return "paper's slip", f"{because}: {digits[0]} printed, {digits[1]} measured"
    near = f"within {100 * RELATIVE_SIZE_TOLERANCE:g} %: rounding, or bytes of the file's container"
    return verdict, near if verdict == "close" else "differs by more than rounding"


def compare_structure() -> list[dict]:
    """Return the records of comparison.csv for the numbers of Table I that need no training."""
    records = []
    for row, printed in TABLE_1.items():
        full, odn = (dict(measure_table_1_network(row, variant)) for variant in ("full", "odn"))
        odn["size_reduction_pct"] = 100 * (1 - odn["size_mb"] / full["size_mb"])
        full["depth"] = ARCHITECTURES[printed.architecture].depth
        for variant, figures in {"full": full, "odn": odn}.items():
            for cell, measured in figures.items():
                record = make_cell_record(row, variant, cell, measured=measured)
                verdict, why = judge_structure(row, variant, cell, record["paper"], measured)
                grade = "not " * (verdict in ("better", "worse")) + "structure reproduced"
                records.append(record | {"grade": grade, "verdict": verdict, "why": why})
    return records


def compare_trained_cells(runs: pd.DataFrame) -> list[dict]:
    """Return the records of comparison.csv for accuracy, depth and what follows from it, means over seeds of `runs`."""
    records = []
    for keys, seeds in runs.dropna(subset="test_acc_pct").groupby(GROUP_COLUMNS, sort=False):
        (row, variant, *_), first, grade_of_row = keys, seeds.iloc[0], grades.grade_runs(seeds, runs)
        tested = grades.list_test_accuracies(seeds)["test_acc_pct"]
        for cell in CELLS_DECIDED_BY_TRAINING[variant]:
            values = tested if cell == "test_acc_pct" else seeds[cell.removeprefix("found_")]
            measured, grade = {"measured": values.mean(), "std": values.std(), "n": len(values)}, grade_of_row
            record = make_cell_record(row, variant, cell, **measured)
            if first["not_comparable"]:
                verdict, why = "not comparable", first["not_comparable"]
            elif cell == "test_acc_pct":
                tolerance = accuracy_tolerance_pts(record["paper"], record["std"], len(tested), first["test_images"])
                verdict = judge_agreement(record["paper"], record["measured"], tolerance)
                why = f"tolerance {tolerance:.2f} points, {grades.describe_n(seeds)}"
                if grade.startswith("not corroborated"):  # for its depth, or for this
                    grade = grades.grade_accuracy(seeds)
                elif grade.startswith("not reproduced"):
                    verdict, why = "not reproduced", grade.partition(", ")[2]
                elif grade.startswith("procedure reproduced"):
                    why = f"{grade.partition(', ')[2]}; {why}"
            elif grade.startswith("not corroborated"):
                verdict, why = "not corroborated", grade.partition(" (")[2][:-1]
            else:
                depths = getattr(TABLE_1[row], variant).depth, seeds["depth"].mean()
                verdict, why = judge_agreement(*depths, 0.5, more_is_better=False), "verdict of the depth found"
                if grade.startswith("not reproduced") and verdict == "equal":  # for another quantity
                    grade = f"depth corroborated, n = {len(seeds)}"
            record |= dict(zip(GROUP_COLUMNS, keys, strict=True))
            records.append(record | {"grade": grade, "verdict": verdict, "why": why})
    return records


def compare_with_paper(runs: pd.DataFrame) -> pd.DataFrame:
    """Return comparison.csv of `runs`, one row per cell of Table I and group of seeds, unmeasured cells among them.
    Where any group is comparable with the paper, those that are not are left out.
    """
    trained = compare_trained_cells(select_table_1_runs(runs))
    comparable = [record for record in trained if record["verdict"] != "not comparable"]
    records = compare_structure() + (comparable or trained)
    measured = {tuple(record[name] for name in CELL_COLUMNS) for record in records}
    for row, (variant, cells) in product(TABLE_1, CELLS_DECIDED_BY_TRAINING.items()):
        missing = [cell for cell in cells[:2] if (row, variant, cell) not in measured]
        records += [make_cell_record(row, variant, cell) for cell in missing]
    return pd.DataFrame(records, columns=COMPARISON_COLUMNS)


def select_best_evidence(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the best row of `compare_with_paper` for each of the 55 numbers of Table I: comparable with the paper if
    possible, then of the profile with most work, then with the fewest overrides, then with the most seeds.
    """
    worth = {"comparable": numbers["verdict"] != "not comparable"}
    worth["strength"] = numbers["profile"].map(["", *SETTINGS_OF_PROFILE].index)
    worth["plain"] = -numbers["label"].str.len()
    ranked = numbers.assign(**worth).sort_values([*worth, "n"])[COMPARISON_COLUMNS]
    best = ranked.drop_duplicates(CELL_COLUMNS, keep="last").set_index(CELL_COLUMNS)
    order = [cell for cell in product(TABLE_1, CELLS_DECIDED_BY_TRAINING, PRINTED_CELLS) if cell in best.index]
    return best.loc[order].reset_index()


def average_runs_over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Return table1.csv: `AVERAGED_COLUMNS` of `runs`, means over n seeds, by dataset, variant and settings."""
    grouped = runs.groupby(GROUP_COLUMNS, sort=False)
    counts = [grouped.size().rename("n"), grouped["met_goal"].sum().rename("seeds_that_met_the_goal")]
    return grouped[AVERAGED_COLUMNS].mean().join(counts).reset_index()


def pair_searches_with_whole_networks(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield (dataset, a group of searches that met the goal, whole networks to compare them with), both from `runs`:
    those with the searches' settings; if there are none, for comparable searches all that are comparable.
    """
    runs = select_table_1_runs(runs).dropna(subset="test_acc_pct")
    runs = runs.assign(strength=-runs["profile"].map(list(SETTINGS_OF_PROFILE).index))
    searches = runs[(runs["variant"] == "odn") & runs["met_goal"]]
    for (row, _, *kind), seeds in searches.groupby(["row", "strength", *GROUP_COLUMNS[2:]]):
        wholes = runs[(runs["row"] == row) & (runs["variant"] == "full")]
        whole = wholes[(wholes[GROUP_COLUMNS[2:]] == kind).all(axis=1)]
        if whole.empty and not seeds["not_comparable"].iloc[0]:
            whole = wholes[wholes["not_comparable"] == ""]
        yield row, seeds, whole
