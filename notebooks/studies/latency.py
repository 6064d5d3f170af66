"""CPU latency: are optimally deep networks faster than full ones by as much as they have fewer MACs?"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd
import torch

from odnlib import metrics, models, recipes
from odnlib.data import DATASETS, Dataset
from odnlib.files import processor, write_csv
from odnlib.paper import TABLE_1
from studies import common
from studies.plots import AnyRun

BATCHES = (1, 128)  # images, for which latencies are measured
FILE = "latency.csv"


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int = 9) -> dict[str, float]:
    """Return each task's median milliseconds. A round runs every task once; one more round first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for name, task in list(tasks.items()) * (rounds + 1):
        start = time.perf_counter()
        task()
        seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken[1:]) for name, taken in seconds.items()}


@torch.inference_mode()
def milliseconds(run: AnyRun, dataset: Dataset, depths: list[int], batch: int, rounds: int = 9) -> dict[int, float]:
    """Return depth -> median milliseconds per batch on the CPU, of untrained networks (speed is the same)."""
    whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    whole = whole.to(memory_format=torch.channels_last).eval()
    images = torch.rand(batch, *dataset.image_shape).contiguous(memory_format=torch.channels_last)
    return in_turns({depth: partial(whole.truncate(depth), images) for depth in depths}, rounds)


def timed(run: AnyRun, odn_depth: int, full_depth: int) -> list[dict]:
    """Return a line (dict) per batch size: latencies of both networks, their ratio, and the ratio of their MACs."""
    lines, dataset = [], DATASETS[run.row]
    whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    macs = {depth: metrics.macs(whole.truncate(depth), dataset.image_shape) for depth in (odn_depth, full_depth)}
    for batch in BATCHES:
        taken = milliseconds(run, dataset, [odn_depth, full_depth], batch)  # of one network where the search took all
        odn_ms, full_ms = taken[odn_depth], taken[full_depth]
        line = {"row": run.row, "width": run.width, "batch": batch, "threads": torch.get_num_threads()}
        line |= {"odn_ms": odn_ms, "full_ms": full_ms, "latency_ratio": full_ms / odn_ms}
        lines.append(line | {"macs_ratio": macs[full_depth] / macs[odn_depth], "processor": processor()})
    return lines


def measure(odn_folder: Path, full_folder: Path) -> pd.DataFrame:
    """Return `timed` for a search and its full network; measured once, stored in the search's folder."""
    file = odn_folder / FILE
    if not file.exists():
        odn = recipes.read_run(odn_folder)
        write_csv(file, timed(odn, odn.depth, recipes.read_run(full_folder).depth))
    return pd.read_csv(file)


def measure_table_1(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return `timed` for Table I's networks, untrained, at full width; measured once, kept in the profile's folder."""
    file = results_dir / profile / FILE
    if not file.exists():
        lines = [timed(recipes.resolve(x, profile="paper"), at.odn.depth, at.full.depth) for x, at in TABLE_1.items()]
        write_csv(file, list(chain.from_iterable(lines)))
    return pd.read_csv(file)


def table(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return all latency measurements in which the two networks differ, with not_comparable (a reason or "")."""
    runs = common.finished(results_dir, profile, "odn").itertuples()
    files = {run.folder / FILE: run.not_comparable for run in runs} | {results_dir / profile / FILE: ""}
    tables = [pd.read_csv(file).assign(not_comparable=why) for file, why in files.items() if file.exists()]
    return pd.concat([pd.DataFrame({"macs_ratio": []}), *tables], ignore_index=True).query("macs_ratio > 1")


def verdict(measured: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason) on whether fewer MACs mean less latency; measurements at full width take precedence."""
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
    for_all = common.for_all(True, set(lines["row"]))
    return (for_all if faster == 1 else common.OPEN if faster > 0.5 else common.FAILS), sentence
