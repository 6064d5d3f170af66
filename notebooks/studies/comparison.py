"""Measured beside printed: every number of Table I with a verdict, as a function of the run folders alone."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from odnlib import metrics, models
from odnlib.architectures import ARCHITECTURES
from odnlib.data import DATASETS
from odnlib.files import read_json
from odnlib.paper import TABLE_1
from odnlib.presets import PROFILES
from studies import common

PRINTED_CELLS = ("depth", "params_m", "size_mb", "size_reduction_pct", "macs_m", "test_acc_pct")
SIZE_TOLERANCE = 0.003  # of the printed size: the container's overhead differs by version (measured 10 to 30 kB)
GROUP = ["row", "variant", "profile", "rule", "label"]
COLUMNS = ["row", "variant", "cell", "profile", "rule", "label", "paper", "measured", "std", "n", "verdict", "why"]
WORTH = {
    "smoke": "embedded stand-in images and narrow networks: an illustration, no reproduction",
    "reduced": "real images, narrow networks: a trend, not a row of Table I",
    "quick": "real images, full-width networks, a cheap training",
    "paper": "real images, full-width networks, the whole rule unless overridden",
}
HEADLINE = {  # cell: title, format
    "depth": ("depth", "{:g}"),
    "size_mb": ("MB", "{:.2f}"),
    "macs_m": ("million MACs", "{:.1f}"),
    "test_acc_pct": ("test accuracy, %", "{:.2f}"),
}


@dataclass(frozen=True)
class Slip:
    """A printed figure that repeats another network's, or differs in a digit; `slip_evidence` computes it."""

    row: str
    variant: str
    cell: str
    because: str
    network: dict | None = None  # the network whose figure this is: what differs from the row's own; None: one digit


SLIPS = (
    Slip("emnist", "full", "params_m", "the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    Slip("emnist", "full", "macs_m", "the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    Slip("emnist", "odn", "macs_m", "one digit differs"),
    Slip("svhn", "full", "macs_m", "the figure of 28x28x1 images, SVHN has 32x32x3", {"image_shape": (1, 28, 28)}),
)


def runs_from(results_dir: Path, profile: str) -> pd.DataFrame:
    """`common.finished` of a profile and of the stronger ones, label with the training version where there are more."""
    runs = pd.concat([common.finished(results_dir, name) for name in stronger(profile)], ignore_index=True)
    return runs.assign(label=common.shared(runs, set()), params_m=runs["params"] / 1e6) if len(runs) else runs


def stronger(profile: str) -> list[str]:
    """This profile and those of more work."""
    return list(PROFILES)[list(PROFILES).index(profile) :]


@functools.cache
def network_figures(architecture: str, depth: int, classes: int, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """Structural columns of Table I for a full-width network cut at `depth`."""
    cut = models.build(architecture, image_shape[0], classes).truncate(depth)
    figures = metrics.structure(cut, image_shape)
    return {"params_m": figures["params"] / 1e6, "size_mb": figures["size_mb"], "macs_m": figures["macs_m"]}


def row_figures(row: str, variant: str, **other: object) -> dict[str, float]:
    """`network_figures` of one line of Table I; `other` replaces its classes or image_shape."""
    dataset = DATASETS[row]
    network = {"classes": dataset.classes, "image_shape": dataset.image_shape} | other
    return network_figures(TABLE_1[row].architecture, getattr(TABLE_1[row], variant).depth, **network)


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
    """Verdict and reason for a number that needs no training."""
    if f"{measured:.2f}" == f"{paper:.2f}":
        return "equal", "same printed digits"
    if evidence := slip_evidence(row, variant, cell, paper, measured):
        return "paper's slip", evidence
    if abs(measured - paper) <= SIZE_TOLERANCE * paper:
        return "close", f"within {100 * SIZE_TOLERANCE:g} %: rounding, or bytes of the file's container"
    return ("better" if (measured < paper) != cell.endswith("_pct") else "worse"), "differs by more than rounding"


def structural_lines() -> list[dict]:
    """The numbers of Table I that need no training."""
    lines = []
    for row, printed in TABLE_1.items():
        figures = {variant: row_figures(row, variant) for variant in ("full", "odn")}
        figures["full"]["depth"] = ARCHITECTURES[printed.architecture].depth
        saved = 100 * (1 - figures["odn"]["size_mb"] / figures["full"]["size_mb"])
        for variant, measured in figures.items():
            cells = {cell: (getattr(getattr(printed, variant), cell), value) for cell, value in measured.items()}
            cells |= {"size_reduction_pct": (printed.size_reduction_pct, saved)} if variant == "odn" else {}
            for cell, (paper, value) in cells.items():
                verdict, why = structural_verdict(row, variant, cell, paper, value)
                line = {"row": row, "variant": variant, "cell": cell, "paper": paper, "measured": value, "n": 0}
                lines.append(line | {"verdict": verdict, "why": why})
    return lines


def accuracy_tolerance(paper_pct: float, std: float, n: int, test_images: int) -> float:
    """Half the 95 % interval, in points, of the difference between the paper's single run and the mean of n runs.

    The variance of one run is the binomial one of the test set, plus the seed-to-seed variance where n > 1 shows it.
    Both sides are tested on the same images, which this leaves out: it errs towards `close`.
    """
    p = paper_pct / 100
    seeds = 0.0 if math.isnan(std) else std**2
    return 1.96 * math.sqrt(2 * 1e4 * p * (1 - p) / test_images + seeds * (1 + 1 / n))


def accuracy_verdict(paper: float, measured: float, tolerance: float) -> str:
    """equal (same printed digits), close, better or worse."""
    if f"{measured:.2f}" == f"{paper:.2f}":
        return "equal"
    return "close" if abs(measured - paper) <= tolerance else "better" if measured > paper else "worse"


def depth_verdict(paper: int, measured: float) -> str:
    """equal, close (less than half a block), better (shallower) or worse."""
    if measured == paper:
        return "equal"
    return "close" if abs(measured - paper) < 0.5 else "better" if measured < paper else "worse"


def trained_lines(runs: pd.DataFrame) -> list[dict]:
    """Accuracy, depth and what follows from the depth found, averaged over seeds."""
    lines = []
    for keys, group in runs.groupby(GROUP, sort=False) if len(runs) else []:
        row, variant = keys[:2]
        printed, n, reason = getattr(TABLE_1[row], variant), len(group), group["not_comparable"].iloc[0]
        cells = {"test_acc_pct": (printed.test_acc_pct, group["test_acc_pct"])}
        if variant == "odn":
            cells["depth"] = (printed.depth, group["depth"])
            cells |= {f"found_{c}": (getattr(printed, c), group[c]) for c in ("params_m", "size_mb", "macs_m")}
            saved = 100 * (1 - group["size_mb"] / group["full_size_mb"])
            cells["found_size_reduction_pct"] = (TABLE_1[row].size_reduction_pct, saved)
        for cell, (paper, values) in cells.items():
            mean, std = values.mean(), values.std()
            tolerance = accuracy_tolerance(printed.test_acc_pct, std, n, group["test_images"].iloc[0])
            if reason:
                verdict, why = "not comparable", reason
            elif cell == "test_acc_pct":
                verdict, why = accuracy_verdict(paper, mean, tolerance), f"tolerance {tolerance:.2f} points, n = {n}"
            else:
                verdict, why = depth_verdict(printed.depth, group["depth"].mean()), "verdict of the depth found"
            line = dict(zip(GROUP, keys, strict=True)) | {"cell": cell, "paper": paper, "measured": mean}
            lines.append(line | {"std": std, "n": n, "verdict": verdict, "why": why})
    return lines


def of_table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Without runs that answer other questions: other architectures, whole networks cut, goals out of reach."""
    if runs.empty:
        return runs
    own = runs["architecture"] == runs["row"].map(lambda row: TABLE_1[row].architecture)
    whole = runs["last_depth"] == [TABLE_1[row].full.depth for row in runs["row"]]
    return runs[own & (whole | (runs["variant"] == "odn")) & (runs["goal_pct"] < 100)]


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """All lines of comparison.csv; a printed number that nothing measured gets one that says so."""
    frame = pd.DataFrame([*structural_lines(), *trained_lines(of_table_1(runs))], columns=COLUMNS)
    covered = set(frame[["row", "variant", "cell"]].itertuples(index=False, name=None))
    wanted = [
        (row, *at) for row in TABLE_1 for at in (("full", "test_acc_pct"), ("odn", "test_acc_pct"), ("odn", "depth"))
    ]
    missing = [
        dict(zip(COLUMNS[:3], at, strict=True)) | {"paper": getattr(getattr(TABLE_1[at[0]], at[1]), at[2]), "n": 0}
        for at in wanted
        if at not in covered
    ]
    lines = [frame, pd.DataFrame(missing, columns=COLUMNS).assign(verdict="not measured", why="no run yet")]
    every = pd.concat([x for x in lines if len(x)], ignore_index=True)
    return every.assign(**{name: every[name].astype(object).fillna("") for name in GROUP})


def best_evidence(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per printed number of Table I (55): comparable if possible, then of the strongest profile, then the one
    with the fewest overrides, then with the most seeds.
    """
    printed = frame[frame["cell"].isin(PRINTED_CELLS)].copy()
    printed["comparable"] = printed["verdict"] != "not comparable"
    printed["strength"] = printed["profile"].map(["", *PROFILES].index)
    printed["plain"] = -printed["label"].str.len()
    preference = ["comparable", "strength", "plain", "n"]
    best = printed.sort_values(preference, kind="stable").groupby(["row", "variant", "cell"], sort=False).tail(1)
    order = [list(TABLE_1), ["full", "odn"], list(PRINTED_CELLS)]
    for column, values in zip(["row", "variant", "cell"], order, strict=True):
        best[column] = pd.Categorical(best[column], values)
    return best.sort_values(["row", "variant", "cell"]).drop(columns=preference[:3]).reset_index(drop=True)


def sensitivity(frame: pd.DataFrame, tolerances: tuple[float, ...] = (0.25, 0.5, 1.0)) -> pd.DataFrame:
    """How the verdict of every comparable accuracy would change with a fixed tolerance in points."""
    measured = (frame["cell"] == "test_acc_pct") & (frame["n"] > 0) & (frame["verdict"] != "not comparable")
    table = frame.loc[measured, [*GROUP, "paper", "measured", "verdict"]].copy()
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


def headline(runs: pd.DataFrame) -> pd.DataFrame:
    """What stands beside Table I: per row the strongest comparable runs, means over seeds."""
    lines = []
    for row, printed in TABLE_1.items():
        for variant, network in {"odn": "optimally deep", "full": "whole"}.items():
            line = {"dataset": printed.title, "network": network, "trained": "not run"}
            of_row = of_table_1(runs[(runs["row"] == row) & (runs["variant"] == variant)]) if len(runs) else runs
            comparable = of_row[of_row["not_comparable"] == ""] if len(of_row) else of_row
            if len(comparable):
                at = common.most_telling(comparable, GROUP[2:], lambda x: (len(x), -len(x["label"].iloc[0])))
                made_by = [read_json(folder / "provenance.json") for folder in at["folder"]]
                hours, first = sum(made["seconds"] for made in made_by) / 3600, at.iloc[0]
                machine = f"{made_by[0]['processor']}, {made_by[0]['threads']} threads"
                line["trained"] = (
                    f"{first['profile']}, {first['rule']}, n = {len(at)}; {hours:.1f} h in all on {machine}"
                )
                for cell, (title, form) in HEADLINE.items():
                    paper = getattr(getattr(printed, variant), cell)
                    line[f"{title} (paper)"] = f"{form.format(at[cell].mean())} ({form.format(paper)})"
            lines.append(line)
    return pd.DataFrame(lines)
