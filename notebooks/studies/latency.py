"""Does speed follow multiply-accumulates? Full and optimally deep network of a row, in turns on the CPU."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from odnlib import metrics, models, recipes
from odnlib.data import DATASETS
from odnlib.files import processor, write_csv
from odnlib.paper import TABLE_1
from studies import common

BATCHES = (1, 128)  # images


def measure(odn_folder: Path, full_folder: Path) -> pd.DataFrame:
    """Milliseconds for a batch of both networks, beside the ratio of their MACs; a line per size of the batch.

    Speed does not depend on the weights, so fresh networks of the found depths serve. Measured once; kept in the run
    folder of the search as latency.csv.
    """
    file = odn_folder / "latency.csv"
    if file.exists():
        return pd.read_csv(file)
    odn, full = recipes.read(odn_folder), recipes.read(full_folder)
    dataset, networks = DATASETS[odn.row], {}
    for run in (odn, full):
        whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
        networks[run.variant] = whole.truncate(run.depth).to(memory_format=torch.channels_last)
    lines = []
    for batch in BATCHES:
        taken = metrics.latency_ms(networks, dataset.image_shape, batch)
        line = {"row": odn.row, "width": odn.width, "batch": batch, "threads": torch.get_num_threads()}
        line |= {"odn_ms": taken["odn"], "full_ms": taken["full"], "latency_ratio": taken["full"] / taken["odn"]}
        lines.append(line | {"macs_ratio": full.macs_m / odn.macs_m, "processor": processor()})
    write_csv(file, lines)
    return pd.read_csv(file)


def table(results_dir: Path, profile: str = "*") -> pd.DataFrame:
    """What `measure` left for searches that ended before the last depth, and for each why it is not_comparable."""
    runs = common.finished(results_dir, profile, "odn")
    lines = [
        pd.read_csv(run.folder / "latency.csv").assign(not_comparable=run.not_comparable)
        for run in runs.itertuples()
        if (run.folder / "latency.csv").exists()
    ]
    measured = pd.concat(lines, ignore_index=True) if lines else pd.DataFrame({"macs_ratio": []})
    return measured[measured["macs_ratio"] > 1]


def verdict(measured: pd.DataFrame) -> tuple[str, str]:
    """Whether fewer MACs mean less latency; `measured` as `table` gives it. Runs at full width count before others."""
    comparable = measured[measured["not_comparable"] == ""] if len(measured) else measured
    lines = comparable if len(comparable) else measured
    if lines.empty:
        return "not measured", "no search that ends before the last depth has measured latency"
    faster = (lines["latency_ratio"] > 1).mean()
    widths = ", ".join(map(str, sorted(lines["width"].unique())))
    sentence = (
        f"{len(lines)} measurements on a CPU ({lines['row'].nunique()} rows, batch 1 and 128, width {widths}): the ODN "
        f"is faster in {faster:.0%}, median {lines['latency_ratio'].median():.1f} x for "
        f"{lines['macs_ratio'].median():.1f} x fewer MACs"
    )
    if comparable.empty:
        return "not comparable", f"{lines['not_comparable'].iloc[0]}: {sentence}"
    for_all = common.HOLDS if set(lines["row"]) >= set(TABLE_1) else common.OPEN
    return (for_all if faster == 1 else common.OPEN if faster > 0.5 else common.FAILS), sentence
