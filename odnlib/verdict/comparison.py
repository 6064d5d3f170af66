"""Every number that the paper prints beside what was measured, with a verdict and its reason.

Structural cells (parameters, bytes, MACs) are measured here and now at the paper's depth and full width, so they have
a verdict in every profile. Accuracies and depths come from run folders; those of stand-in images or narrow networks
are listed, and are not comparable.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from odnlib import metrics, results
from odnlib.architectures import ARCHITECTURES
from odnlib.data import DATASETS
from odnlib.models import MultiExitNetwork
from odnlib.paper import SLIPS, TABLE_1
from odnlib.recipes import PROFILES

COLUMNS = ["row", "variant", "cell", "profile", "protocol", "tag", "paper", "measured", "std", "n", "verdict", "why"]
PRINTED_CELLS = ("depth", "params_m", "size_mb", "size_reduction_pct", "macs_m", "test_acc_pct")
SIZE_TOLERANCE = 0.003  # of the printed size: the container's overhead differs by version (measured 10 to 30 kB)
# Overrides (by tag) that leave a run comparable: an open reading, and two that only change speed and rounding.
HARMLESS = ("carry", "threads", "bf16")
GROUP = ["row", "variant", "profile", "protocol", "tag"]


@functools.cache
def network_figures(architecture: str, depth: int, classes: int, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """Structural columns of Table I for a full-width network cut at `depth`."""
    cut = MultiExitNetwork(architecture, image_shape[0], classes).truncate(depth)
    figures = metrics.structure(cut, image_shape)
    return {"params_m": figures["params"] / 1e6, "size_mb": figures["size_mb"], "macs_m": figures["macs_m"]}


def row_figures(row: str, variant: str, **other: object) -> dict[str, float]:
    """`network_figures` of one line of Table I; `other` replaces its classes or image_shape."""
    dataset = DATASETS[row]
    network = {"classes": dataset.classes, "image_shape": dataset.image_shape} | other
    return network_figures(TABLE_1[row].architecture, getattr(TABLE_1[row], variant).depth, **network)


def line(row: str, variant: str, cell: str, paper: float, measured: float | None, verdict: str, why: str) -> dict:
    given = {"row": row, "variant": variant, "cell": cell, "paper": paper, "measured": measured}
    return dict.fromkeys(COLUMNS, "") | given | {"n": 0, "std": None, "verdict": verdict, "why": why}


def slip_evidence(row: str, variant: str, cell: str, paper: float, measured: float) -> str:
    """Why a printed figure is a slip, if the computed evidence bears that out; empty otherwise."""
    for slip in SLIPS:
        if (slip.row, slip.variant, slip.cell) != (row, variant, cell):
            continue
        if slip.network is not None:
            other = row_figures(row, variant, **slip.network)[cell]
            return f"{slip.because}: that network has {other:.2f}" if f"{other:.2f}" == f"{paper:.2f}" else ""
        digits = sum(a != b for a, b in zip(f"{paper:.2f}", f"{measured:.2f}", strict=False))
        return f"{slip.because}: {paper:.2f} printed, {measured:.2f} measured" if digits == 1 else ""
    return ""


def structural_verdict(row: str, variant: str, cell: str, paper: float, measured: float) -> tuple[str, str]:
    if f"{measured:.2f}" == f"{paper:.2f}":
        return "equal", "same printed digits"
    if evidence := slip_evidence(row, variant, cell, paper, measured):
        return "paper's slip", evidence
    if abs(measured - paper) <= SIZE_TOLERANCE * paper:
        return "close", f"within {100 * SIZE_TOLERANCE:g} %: rounding, or bytes of the file's container"
    return ("better" if (measured < paper) != cell.endswith("_pct") else "worse"), "differs by more than rounding"


def structural_lines() -> list[dict]:
    """The cells of Table I that need no training."""
    lines = []
    for row, printed in TABLE_1.items():
        sizes = {}
        for variant in ("full", "odn"):
            at = getattr(printed, variant)
            figures = row_figures(row, variant)
            sizes[variant] = figures["size_mb"]
            for cell, measured in figures.items():
                paper = getattr(at, cell)
                lines.append(
                    line(row, variant, cell, paper, measured, *structural_verdict(row, variant, cell, paper, measured))
                )
        largest, saved = ARCHITECTURES[printed.architecture].depth, 100 * (1 - sizes["odn"] / sizes["full"])
        same = "equal" if largest == printed.full.depth else "worse"
        lines.append(line(row, "full", "depth", printed.full.depth, largest, same, "blocks of the architecture"))
        paper = printed.size_reduction_pct
        verdict = structural_verdict(row, "odn", "size_reduction_pct", paper, saved)
        lines.append(line(row, "odn", "size_reduction_pct", paper, saved, *verdict))
    return lines


def load_runs(results_dir: Path, profile: str) -> pd.DataFrame:
    """One line per finished run of `profile` and of every profile after it in `PROFILES`, recipe and result joined."""
    strength = list(PROFILES)
    lines = []
    for file in sorted(Path(results_dir).glob("*/runs/*/result.json")):
        recipe, made_by = (results.read_json(file.with_name(f"{name}.json")) for name in ("recipe", "provenance"))
        weaker = strength.index(recipe["profile"]) < strength.index(profile)
        if ".replaced" in file.parent.name or weaker or recipe["row"] not in TABLE_1:
            continue
        result = results.read_json(file)
        depths = pd.read_csv(file.with_name("depths.csv"))
        stale = not results.by_todays_code(made_by, recipe["embedded"])
        extra = {"full_size_mb": depths["size_mb"].iloc[-1], "folder": str(file.parent), "stale": stale}
        joined = recipe | result | extra | {"params_m": result["params"] / 1e6}
        lines.append(joined | {"not_comparable": why_not_comparable(joined)})
    return pd.DataFrame(lines)


def why_not_comparable(run: Mapping[str, object]) -> str:
    """Empty where a run's accuracy and depth may be held against the paper's."""
    reasons = []
    if run["embedded"]:
        reasons.append("stand-in images")
    if run["width"] != 64:
        reasons.append(f"width {run['width']}, not 64")
    if overridden := [part for part in run["tag"].split("-") if part and not part.startswith(HARMLESS)]:
        reasons.append(f"overridden: {', '.join(overridden)}")
    return ", ".join(reasons)


def accuracy_tolerance(paper_pct: float, std: float, n: int, test_images: int) -> float:
    """Half the 95 % interval, in points, of the difference between the paper's single run and the mean of n runs.

    The variance of one run is the binomial one of the test set, plus the seed-to-seed variance where n > 1 shows it.
    Both sides are tested on the same images, which this leaves out: it errs towards `close`.
    """
    p = paper_pct / 100
    seeds = 0.0 if math.isnan(std) else std**2
    return 1.96 * math.sqrt(2 * 1e4 * p * (1 - p) / test_images + seeds * (1 + 1 / n))


def accuracy_verdict(paper: float, measured: float, tolerance: float) -> str:
    if f"{measured:.2f}" == f"{paper:.2f}":
        return "equal"
    if abs(measured - paper) <= tolerance:
        return "close"
    return "better" if measured > paper else "worse"


def depth_verdict(paper: int, measured: float) -> str:
    if measured == paper:
        return "equal"
    if abs(measured - paper) < 0.5:
        return "close"
    return "better" if measured < paper else "worse"


def trained_lines(runs: pd.DataFrame) -> list[dict]:
    """Accuracy, depth and what follows from the depth found, averaged over seeds."""
    lines = []
    for keys, group in runs.groupby(GROUP, sort=False) if len(runs) else []:
        row, variant = keys[:2]
        printed, n = getattr(TABLE_1[row], variant), len(group)
        saved = 100 * (1 - group["size_mb"] / group["full_size_mb"])
        cells = {"test_acc_pct": (printed.test_acc_pct, group["test_acc_pct"])}
        if variant == "odn":
            cells["depth"] = (printed.depth, group["depth"])
            cells |= {f"found_{c}": (getattr(printed, c), group[c]) for c in ("params_m", "size_mb", "macs_m")}
            cells["found_size_reduction_pct"] = (TABLE_1[row].size_reduction_pct, saved)
        reason = group["not_comparable"].iloc[0]
        for cell, (paper, values) in cells.items():
            mean, std = values.mean(), values.std()
            if reason:
                verdict, why = "not comparable", reason
            elif cell == "test_acc_pct":
                tolerance = accuracy_tolerance(paper, std, n, group["test_images"].iloc[0])
                verdict, why = accuracy_verdict(paper, mean, tolerance), f"tolerance {tolerance:.2f} points, n = {n}"
            else:
                verdict = depth_verdict(printed.depth, group["depth"].mean())
                why = "verdict of the depth found"
            made = line(row, variant, cell, paper, mean, verdict, why)
            lines.append(made | dict(zip(GROUP, keys, strict=True)) | {"std": std, "n": n})
    return lines


def of_table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Without runs that answer other questions: other architectures, whole networks cut beforehand, goals that no depth
    meets (`studies.trend`).
    """
    if runs.empty:
        return runs
    own = runs["architecture"] == runs["row"].map(lambda row: TABLE_1[row].architecture)
    whole = runs["last_depth"] == runs["architecture"].map(lambda name: ARCHITECTURES[name].depth)
    return runs[own & (whole | (runs["variant"] == "odn")) & (runs["target_pct"] - runs["tolerance_pct"] < 100)]


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """All lines of comparison.csv; a printed cell that nothing measured gets one that says so."""
    frame = pd.DataFrame([*structural_lines(), *trained_lines(of_table_1(runs))], columns=COLUMNS)
    covered = set(frame[["row", "variant", "cell"]].itertuples(index=False, name=None))
    missing = [
        line(row, variant, cell, getattr(getattr(TABLE_1[row], variant), cell), None, "not measured", "no run yet")
        for row in TABLE_1
        for variant, cell in [("full", "test_acc_pct"), ("odn", "test_acc_pct"), ("odn", "depth")]
        if (row, variant, cell) not in covered
    ]
    return pd.concat([frame, pd.DataFrame(missing, columns=COLUMNS)], ignore_index=True) if missing else frame


def best_evidence(comparison: pd.DataFrame) -> pd.DataFrame:
    """One line per printed cell of Table I (55): comparable if possible, then of the strongest profile, then the one
    with the fewest overrides, then with the most seeds.
    """
    strength = {profile: number for number, profile in enumerate(["", *PROFILES])}
    printed = comparison[comparison["cell"].isin(PRINTED_CELLS)].copy()
    printed["comparable"], printed["strength"] = (
        printed["verdict"] != "not comparable",
        printed["profile"].map(strength),
    )
    printed["plain"] = -printed["tag"].str.len()
    preference = ["comparable", "strength", "plain", "n"]
    best = printed.sort_values(preference, kind="stable").groupby(["row", "variant", "cell"], sort=False).tail(1)
    order = [list(TABLE_1), ["full", "odn"], list(PRINTED_CELLS)]
    for column, values in zip(["row", "variant", "cell"], order, strict=True):
        best[column] = pd.Categorical(best[column], values)
    return best.sort_values(["row", "variant", "cell"]).drop(columns=preference[:3]).reset_index(drop=True)


def sensitivity(comparison: pd.DataFrame, tolerances: tuple[float, ...] = (0.25, 0.5, 1.0)) -> pd.DataFrame:
    """How the verdict of every comparable accuracy would change with a fixed tolerance in points."""
    accuracies = comparison[(comparison["cell"] == "test_acc_pct") & (comparison["n"] > 0)]
    accuracies = accuracies[accuracies["verdict"] != "not comparable"]
    table = accuracies[[*GROUP, "paper", "measured", "verdict"]].copy()
    for tolerance in tolerances:
        table[f"at {tolerance:g}"] = [accuracy_verdict(x.paper, x.measured, tolerance) for x in table.itertuples()]
    return table


def table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Our Table I: means over seeds of what the runs found."""
    if runs.empty:
        return runs
    cells = ["depth", "params_m", "size_mb", "macs_m", "test_acc_pct", "epochs", "train_tmacs"]
    grouped = runs.groupby(GROUP, sort=False)
    met_goal = grouped["met_goal"].sum().rename("seeds_that_met_the_goal")
    return grouped[cells].mean().join([grouped.size().rename("n"), met_goal]).reset_index()
