"""Compares measurements with the paper: every number of Table I with a verdict, computed from the run folders."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

import pandas as pd

from odnlib import metrics, models
from odnlib.architectures import ARCHITECTURES
from odnlib.data import DATASETS
from odnlib.paper import TABLE_1
from odnlib.presets import SETTINGS_OF_PROFILE
from studies import common, grades

CELL = ["row", "variant", "cell"]  # what tells the numbers of Table I apart
GROUP = ["row", "variant", "profile", "rule", "label"]  # what the seeds of a mean have in common
COLUMNS = [*CELL, *GROUP[2:], "paper", "measured", "std", "n", "grade", "verdict", "why"]
PRINTED_CELLS = ("depth", "params_m", "size_mb", "size_reduction_pct", "macs_m", "test_acc_pct")
FOUND_CELLS = ("found_params_m", "found_size_mb", "found_macs_m", "found_size_reduction_pct")  # at the depth found
TRAINED_CELLS = {"full": ("test_acc_pct",), "odn": ("test_acc_pct", "depth", *FOUND_CELLS)}
MEANS = ["depth", "params_m", "size_mb", "macs_m", "test_acc_pct", "epochs", "train_tmacs"]  # of our Table I
READ = [*GROUP, *MEANS, "seed", "folder", "met_goal", "goal_pct", "not_comparable", "architecture", "last_depth"]
SIZE_TOLERANCE = 0.003  # of the printed size: the container's overhead differs by version (measured 10 to 30 kB)
# Printed figures that repeat those of a network with other classes or images, or (None) that differ in a digit.
SLIPS = {
    ("emnist", "full", "params_m"): ("the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    ("emnist", "full", "macs_m"): ("the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    ("emnist", "odn", "macs_m"): ("one digit differs", None),
    ("svhn", "full", "macs_m"): ("the figure of 28x28x1 images, SVHN has 32x32x3", {"image_shape": (1, 28, 28)}),
}


def stronger(profile: str) -> list[str]:
    """Return the names of this profile and of those with more work (order: smoke, reduced, quick, paper)."""
    return list(SETTINGS_OF_PROFILE)[list(SETTINGS_OF_PROFILE).index(profile) :]


def runs_from(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return the finished runs of a profile and of those with more work, as `common.finished` does, with params_m and
    size_reduction_pct. `label` also names a training version after the first. Without runs: empty, same columns.
    """
    runs = pd.concat([common.finished(results_dir, name) for name in stronger(profile)], ignore_index=True)
    if runs.empty:
        return pd.DataFrame(columns=READ, dtype=float)
    runs["size_reduction_pct"] = 100 * (1 - runs["size_mb"] / runs["full_size_mb"])
    return runs.assign(label=common.shared(runs, set()), params_m=runs["params"] / 1e6)


def of_table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that answer Table I: its architecture, full depth where variant is full, goal below 100 %."""
    own = runs["architecture"] == runs["row"].map(lambda row: TABLE_1[row].architecture)
    whole = runs["last_depth"] == runs["row"].map(lambda row: TABLE_1[row].full.depth)
    return runs[own & (whole | (runs["variant"] == "odn")) & (runs["goal_pct"] < 100)]


def tested(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a test accuracy; runs of single depths that were not chosen have none."""
    return runs.dropna(subset="test_acc_pct")


def cell_line(row: str, variant: str, cell: str, **measured: object) -> dict:
    """Return one line of comparison.csv (a dict): the paper's value of a cell of Table I, and what was `measured`."""
    printed, name = TABLE_1[row], cell.removeprefix("found_")
    paper = getattr(printed if name == "size_reduction_pct" else getattr(printed, variant), name)
    line = {"row": row, "variant": variant, "cell": cell, "paper": paper} | dict.fromkeys([*GROUP[2:], "grade"], "")
    return line | {"n": 0, "verdict": "not measured", "why": "no run yet"} | measured


@functools.cache
def structure(row: str, variant: str, **other: object) -> dict[str, float]:
    """Return params_m, size_mb, macs_m of a network of Table I at the paper's depth; `other` replaces dataset facts."""
    dataset = dataclasses.replace(DATASETS[row], **other)
    whole = models.build(TABLE_1[row].architecture, dataset.image_shape[0], dataset.classes)
    figures = metrics.measure_size_and_macs(whole.truncate(getattr(TABLE_1[row], variant).depth), dataset.image_shape)
    return {"params_m": figures.pop("params") / 1e6, **figures}


def agreement(paper: float, measured: float, tolerance: float, more_is_better: bool = True) -> str:
    """Return how a value agrees with the paper's: equal (to two decimals), close (in tolerance), better or worse."""
    if f"{measured:.2f}" == f"{paper:.2f}":
        return "equal"
    if abs(measured - paper) < tolerance:
        return "close"
    return "better" if (measured > paper) == more_is_better else "worse"


def accuracy_tolerance(paper_pct: float, std: float, n: int, test_images: int) -> float:
    """Return the half width, in points, of the 95 % interval of the paper's single run minus the mean of n runs.

    The variance of one run is the binomial one of the test set, plus, for n > 1, the variance between seeds. That both
    are tested on the same images is ignored, which favours `close`.
    """
    p = paper_pct / 100
    seeds = 0.0 if math.isnan(std) else std**2
    return 1.96 * math.sqrt(2 * 1e4 * p * (1 - p) / test_images + seeds * (1 + 1 / n))


def slip_evidence(row: str, variant: str, cell: str, paper: float, measured: float) -> str:
    """Return why a value in the paper is a misprint, if the computed evidence supports that; otherwise ""."""
    because, network = SLIPS.get((row, variant, cell), ("", None))
    if network:
        other = f"{structure(row, variant, **network)[cell]:.2f}"
        return f"{because}: that network has {other}" if other == f"{paper:.2f}" else ""
    digits = sum(a != b for a, b in zip(f"{paper:.2f}", f"{measured:.2f}", strict=False))
    return f"{because}: {paper:.2f} printed, {measured:.2f} measured" if because and digits == 1 else ""


def structural_verdict(row: str, variant: str, cell: str, paper: float, measured: float) -> tuple[str, str]:
    """Return (verdict, reason) for a number of Table I that needs no training."""
    verdict = agreement(paper, measured, SIZE_TOLERANCE * paper, more_is_better=cell.endswith("_pct"))
    if verdict == "equal":
        return verdict, "same printed digits"
    if evidence := slip_evidence(row, variant, cell, paper, measured):
        return "paper's slip", evidence
    near = f"within {100 * SIZE_TOLERANCE:g} %: rounding, or bytes of the file's container"
    return verdict, near if verdict == "close" else "differs by more than rounding"


def structural_lines() -> list[dict]:
    """Return the lines of comparison.csv for the numbers of Table I that need no training."""
    lines = []
    for row, printed in TABLE_1.items():
        full, odn = structure(row, "full"), structure(row, "odn")
        saved_pct = 100 * (1 - odn["size_mb"] / full["size_mb"])
        full = full | {"depth": ARCHITECTURES[printed.architecture].depth}
        for variant, figures in {"full": full, "odn": odn | {"size_reduction_pct": saved_pct}}.items():
            for cell, measured in figures.items():
                line = cell_line(row, variant, cell, measured=measured)
                verdict, why = structural_verdict(row, variant, cell, line["paper"], measured)
                grade = f"{'not ' if verdict in ('better', 'worse') else ''}{grades.STRUCTURE}"
                lines.append(line | {"grade": grade, "verdict": verdict, "why": why})
    return lines


def trained_lines(runs: pd.DataFrame) -> list[dict]:
    """Return the lines of comparison.csv for accuracy, depth and what follows from it, means over seeds."""
    lines = []
    for keys, seeds in tested(runs).groupby(GROUP, sort=False):
        (row, variant, *_), n, first, grade = keys, len(seeds), seeds.iloc[0], grades.grade(seeds, runs)
        for cell in TRAINED_CELLS[variant]:
            values = seeds[cell.removeprefix("found_")]
            line = cell_line(row, variant, cell, measured=values.mean(), std=values.std(), n=n)
            if first["not_comparable"]:
                verdict, why = "not comparable", first["not_comparable"]
            elif cell == "test_acc_pct":
                tolerance = accuracy_tolerance(line["paper"], line["std"], n, first["test_images"])
                verdict = agreement(line["paper"], line["measured"], tolerance)
                why = f"tolerance {tolerance:.2f} points, n = {n}"
            else:
                depths = getattr(TABLE_1[row], variant).depth, seeds["depth"].mean()
                verdict, why = agreement(*depths, 0.5, more_is_better=False), "verdict of the depth found"
            lines.append(line | dict(zip(GROUP, keys, strict=True)) | {"grade": grade, "verdict": verdict, "why": why})
    return lines


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """Return all lines of comparison.csv; a number of the paper that no run measured is "not measured"."""
    lines = structural_lines() + trained_lines(of_table_1(runs))
    measured = {tuple(line[name] for name in CELL) for line in lines}
    for row, variant in product(TABLE_1, TRAINED_CELLS):
        missing = [cell for cell in TRAINED_CELLS[variant][:2] if (row, variant, cell) not in measured]
        lines += [cell_line(row, variant, cell) for cell in missing]
    return pd.DataFrame(lines, columns=COLUMNS)


def best_evidence(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the best line of `compare` for each of the 55 numbers of Table I: comparable with the paper if possible,
    then of the profile with most work, then with the fewest overrides, then with the most seeds.
    """
    worth = {"comparable": frame["verdict"] != "not comparable"}
    worth |= {"strength": frame["profile"].map(["", *SETTINGS_OF_PROFILE].index), "plain": -frame["label"].str.len()}
    ranked = frame.assign(**worth).sort_values([*worth, "n"])[COLUMNS]
    best = ranked.drop_duplicates(CELL, keep="last").set_index(CELL)
    order = [cell for cell in product(TABLE_1, TRAINED_CELLS, PRINTED_CELLS) if cell in best.index]
    return best.loc[order].reset_index()


def sensitivity(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the comparable accuracies with the verdicts that fixed tolerances of 0.25, 0.5 and 1 point would give."""
    table = frame.query("cell == 'test_acc_pct' and n > 0 and verdict != 'not comparable'")
    table = table[[*GROUP, "paper", "measured", "verdict"]]
    for tolerance in (0.25, 0.5, 1.0):
        verdicts = [agreement(line.paper, line.measured, tolerance) for line in table.itertuples()]
        table = table.assign(**{f"at {tolerance:g}": verdicts})
    return table


def table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Return our Table I: per dataset, variant and settings the means over seeds of what the runs found."""
    grouped = runs.groupby(GROUP, sort=False)
    counts = [grouped.size().rename("n"), grouped["met_goal"].sum().rename("seeds_that_met_the_goal")]
    return grouped[MEANS].mean().join(counts).reset_index()


Kind = tuple[str, pd.DataFrame, pd.DataFrame]  # dataset, one group of searches that met the goal, full networks


def searches_with_whole_network(runs: pd.DataFrame) -> Iterator[Kind]:
    """Yield each group of searches that met the goal, with full networks of the same settings to compare with.

    If there are none, and the searches are comparable with the paper, with all full networks that are.
    """
    runs = tested(of_table_1(runs))
    runs = runs.assign(strength=-runs["profile"].map(list(SETTINGS_OF_PROFILE).index))
    searches = runs[(runs["variant"] == "odn") & runs["met_goal"]]
    for (row, _, *kind), seeds in searches.groupby(["row", "strength", *GROUP[2:]]):
        wholes = runs[(runs["row"] == row) & (runs["variant"] == "full")]
        whole = wholes[(wholes[GROUP[2:]] == kind).all(axis=1)]
        if whole.empty and not seeds["not_comparable"].iloc[0]:
            whole = wholes[wholes["not_comparable"] == ""]
        yield row, seeds, whole


def headline(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the first table of report and README: `searches_with_whole_network` as text, means over n seeds, the
    paper's values in brackets; full width first. Of depths that `equal` trained one by one it has the chosen one.
    """
    lines, narrow = {row: [] for row in TABLE_1}, []
    for row, seeds, whole in searches_with_whole_network(runs):
        first, printed, mean = seeds.iloc[0], TABLE_1[row], seeds[["depth", "size_mb", "test_acc_pct"]].mean()
        paper = "" if first["not_comparable"] else " ({})"
        alone = first["rule"] == "equal" and first["first_depth"] > 1
        untold = {"threads", "width"} | (common.ONE_DEPTH if alone else set())
        settings = common.in_common(first["changed"], first["training_version"], untold)
        settings = ["depths one by one" if alone else "", settings, f"n = {len(seeds)}"]
        line = {"dataset": printed.title + ("" if first["width"] == 64 else f", width {first['width']}")}
        line["trained"] = ", ".join(filter(None, [first["profile"], first["rule"], *settings]))
        line["depth (paper)"] = f"{mean['depth']:.3g}{paper.format(printed.odn.depth)}"
        line["MB (paper)"] = f"{mean['size_mb']:.2f}{paper.format(printed.odn.size_mb)}"
        line["test accuracy, % (paper)"] = f"{mean['test_acc_pct']:.2f}{paper.format(printed.odn.test_acc_pct)}"
        if len(whole):
            accuracy, rules = whole["test_acc_pct"].mean(), ", ".join(whole["rule"].unique())
            line["whole network, % (paper)"] = f"{accuracy:.2f}{paper.format(printed.full.test_acc_pct)}"
            line["difference (points)"] = f"{mean['test_acc_pct'] - accuracy:+.2f}, n = {len(whole)} by {rules}"
        line["hours"] = common.hours(seeds) + ", this depth alone" * bool(alone)
        (narrow if first["not_comparable"] else lines[row]).append(line | {"grade": grades.grade(seeds, runs)})
    for row, of_row in lines.items():
        of_row += [] if of_row else [{"dataset": TABLE_1[row].title, "trained": "no complete search at full width"}]
    return pd.DataFrame([*chain.from_iterable(lines.values()), *narrow])
