"""CPU latency: are optimally deep networks faster than full ones by as much as they have fewer MACs?"""

import time
from collections.abc import Callable
from functools import partial
from itertools import chain, product
from pathlib import Path

import pandas as pd
import torch

from odnlib import metrics, models, recipes
from odnlib.data import DATASETS, Dataset
from odnlib.files import describe_processor, write_csv
from odnlib.paper import TABLE_1
from studies import common
from studies.plots import AnyRun

BATCHES = (1, 128)  # images, for which latencies are measured
ROUNDS = 9  # of every measurement
FILE = "latency.csv"


def in_turns(tasks: dict[object, Callable[[], object]], rounds: int = ROUNDS) -> pd.DataFrame:
    """Return milliseconds: a line per round, which runs every task once, and a column per task. One more round first
    warms up.
    """
    lines: list[dict[object, float]] = [{} for _ in range(rounds + 1)]
    for line, (name, task) in product(lines, tasks.items()):
        start = time.perf_counter()
        task()
        line[name] = 1000 * (time.perf_counter() - start)
    return pd.DataFrame(lines[1:])


@torch.inference_mode()
def milliseconds(run: AnyRun, dataset: Dataset, depths: list[int], batch: int, rounds: int = ROUNDS) -> pd.DataFrame:
    """Return `in_turns` of one batch through an untrained network (speed is the same) cut at `depths`, on the CPU."""
    whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    whole = whole.to(memory_format=torch.channels_last).eval()
    images = torch.rand(batch, *dataset.image_shape).contiguous(memory_format=torch.channels_last)
    return in_turns({depth: partial(whole.truncate(depth), images) for depth in depths}, rounds)


def ratio(rounds: pd.DataFrame, odn: object, full: object) -> dict[str, float]:
    """Return the medians odn_ms and full_ms of two columns, latency_ratio (full / odn), and the quartiles of the ratio
    within a round, ratio_low and ratio_high.
    """
    odn_ms, full_ms = rounds[[odn, full]].median()
    low, high = (rounds[full] / rounds[odn]).quantile([0.25, 0.75])
    ratios = {"latency_ratio": full_ms / odn_ms, "ratio_low": low, "ratio_high": high}
    return {"odn_ms": odn_ms, "full_ms": full_ms, **ratios}


def timed(run: AnyRun, odn_depth: int, full_depth: int) -> list[dict]:
    """Return a line (dict) per batch size: `ratio` of both networks, and the ratio of their MACs."""
    lines, dataset = [], DATASETS[run.row]
    whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    macs = {depth: metrics.count_macs(whole.truncate(depth), dataset.image_shape) for depth in (odn_depth, full_depth)}
    for batch in BATCHES:
        line = {"row": run.row, "width": run.width, "batch": batch, "threads": torch.get_num_threads()}
        depths = sorted({odn_depth, full_depth})  # one, where the search took all
        line |= ratio(milliseconds(run, dataset, depths, batch), odn_depth, full_depth)
        lines.append(line | {"macs_ratio": macs[full_depth] / macs[odn_depth], "processor": describe_processor()})
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
