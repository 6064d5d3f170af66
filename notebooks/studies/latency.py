"""Milliseconds on the CPU; does speed follow multiply-accumulates, from the full to the optimally deep network?"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from odnlib import models, recipes
from odnlib.data import DATASETS, Dataset
from odnlib.files import processor, write_csv
from odnlib.paper import TABLE_1
from studies import common
from studies.plots import AnyRun

BATCHES = (1, 128)  # images, for which latencies are measured


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int = 9) -> dict[str, float]:
    """Task name -> its median milliseconds. Each round runs every task once; an additional first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for name, task in list(tasks.items()) * (rounds + 1):
        start = time.perf_counter()
        task()
        seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken[1:]) for name, taken in seconds.items()}


@torch.inference_mode()
def milliseconds(run: AnyRun, dataset: Dataset, depths: list[int], batch: int, rounds: int = 9) -> dict[int, float]:
    """Depth -> median milliseconds for a batch; fresh weights, since speed does not depend on them."""
    whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    whole = whole.to(memory_format=torch.channels_last).eval()
    images = torch.rand(batch, *dataset.image_shape).contiguous(memory_format=torch.channels_last)
    return in_turns({depth: partial(whole.truncate(depth), images) for depth in depths}, rounds)


def measure(odn_folder: Path, full_folder: Path) -> pd.DataFrame:
    """`milliseconds` of both networks beside the ratio of their MACs, a line per size of the batch; measured once, kept
    in the run folder of the search as latency.csv.
    """
    file = odn_folder / "latency.csv"
    if not file.exists():
        odn, full, lines = recipes.read(odn_folder), recipes.read(full_folder), []
        for batch in BATCHES:
            taken = milliseconds(odn, DATASETS[odn.row], [odn.depth, full.depth], batch)
            odn_ms, full_ms = taken[odn.depth], taken[full.depth]
            line = {"row": odn.row, "width": odn.width, "batch": batch, "threads": torch.get_num_threads()}
            line |= {"odn_ms": odn_ms, "full_ms": full_ms, "latency_ratio": full_ms / odn_ms}
            lines.append(line | {"macs_ratio": full.macs_m / odn.macs_m, "processor": processor()})
        write_csv(file, lines)
    return pd.read_csv(file)


def table(results_dir: Path, profile: str) -> pd.DataFrame:
    """What `measure` left for searches that ended before the last depth, and for each why it is not_comparable."""
    tables = [pd.DataFrame()]
    for run in common.finished(results_dir, profile, "odn").itertuples():
        if (file := run.folder / "latency.csv").exists():
            tables.append(pd.read_csv(file).query("macs_ratio > 1").assign(not_comparable=run.not_comparable))
    return pd.concat(tables, ignore_index=True)


def verdict(measured: pd.DataFrame) -> tuple[str, str]:
    """Whether fewer MACs mean less latency; `measured` as `table` gives it. Runs at full width count before others."""
    comparable = measured[measured["not_comparable"] == ""]
    lines = measured if comparable.empty else comparable
    faster, ratios = (lines["latency_ratio"] > 1).mean(), lines[["latency_ratio", "macs_ratio"]].median()
    widths = ", ".join(map(str, sorted(lines["width"].unique())))
    sentence = (
        f"{len(lines)} measurements on a CPU ({lines['row'].nunique()} rows, batch 1 and 128, width {widths}): the ODN "
        f"is faster in {faster:.0%}, median {ratios['latency_ratio']:.1f} x for {ratios['macs_ratio']:.1f} x fewer MACs"
    )
    if comparable.empty:
        return "not comparable", f"{lines['not_comparable'].iloc[0]}: {sentence}"
    for_all = common.HOLDS if set(lines["row"]) >= set(TABLE_1) else common.OPEN
    return (for_all if faster == 1 else common.OPEN if faster > 0.5 else common.FAILS), sentence
