"""CPU latency: are optimally deep networks faster than full ones by as much as they have fewer MACs?"""

import time
from collections.abc import Callable
from functools import partial
from itertools import chain, product
from pathlib import Path

import pandas as pd
import torch

from odnlib import metrics, models, recipes
from odnlib.data import DATASETS
from odnlib.experiment import keep_freed_memory
from odnlib.files import describe_processor, write_csv
from odnlib.paper import TABLE_1
from studies import common
from studies.plots import RunOrRecipe

BATCH_SIZES = (1, 128)  # images, for which latencies are measured
ROUNDS = 9  # of every measurement
RESULTS_FILE = "latency.csv"


def time_in_turns(tasks: dict[object, Callable[[], object]], rounds: int = ROUNDS) -> pd.DataFrame:
    """Return milliseconds, a column per task, a row per round, which runs every task once; one more first warms up."""
    keep_freed_memory()  # as in training: what ran before in this process makes no difference
    measured: list[dict[object, float]] = [{} for _ in range(rounds + 1)]
    for taken, (name, task) in product(measured, tasks.items()):
        start = time.perf_counter()
        task()
        taken[name] = 1000 * (time.perf_counter() - start)
    return pd.DataFrame(measured[1:])


@torch.inference_mode()
def time_two_depths(run: RunOrRecipe, odn_depth: int, full_depth: int) -> list[dict]:
    """Return a record per batch size on the CPU for a run's network, untrained (speed is the same), cut at two depths:
    medians odn_ms and full_ms, latency_ratio (full / odn), ratio_low and ratio_high (quartiles of the ratio within a
    round), macs_ratio, and row, width, batch, threads, processor.
    """
    records, dataset = [], DATASETS[run.row]
    whole = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    macs = {depth: metrics.count_macs(whole.truncate(depth), dataset.image_shape) for depth in (odn_depth, full_depth)}
    whole = whole.to(memory_format=torch.channels_last).eval()
    for batch in BATCH_SIZES:
        images = torch.rand(batch, *dataset.image_shape).contiguous(memory_format=torch.channels_last)
        # One task where the search took all depths.
        rounds = time_in_turns({depth: partial(whole.truncate(depth), images) for depth in sorted(macs)})
        odn, full = rounds[odn_depth], rounds[full_depth]
        low, high = (full / odn).quantile([0.25, 0.75])
        record = {"row": run.row, "width": run.width, "batch": batch, "threads": torch.get_num_threads()}
        record |= {"odn_ms": odn.median(), "full_ms": full.median(), "latency_ratio": full.median() / odn.median()}
        record |= {"ratio_low": low, "ratio_high": high, "macs_ratio": macs[full_depth] / macs[odn_depth]}
        records.append(record | {"processor": describe_processor()})
    return records


def measure_latency(odn_folder: Path, full_folder: Path) -> pd.DataFrame:
    """Return `time_two_depths` of a search and its whole network as a table, kept in the search's folder."""
    file = odn_folder / RESULTS_FILE
    if not file.exists():
        odn = recipes.read_run(odn_folder)
        write_csv(file, time_two_depths(odn, odn.depth, recipes.read_run(full_folder).depth))
    return pd.read_csv(file)


def measure_table_1(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return `time_two_depths` of Table I's networks at width 64 as a table, kept in the profile's folder."""
    file = results_dir / profile / RESULTS_FILE
    if not file.exists():
        rows = {recipes.resolve(row, profile="paper"): printed for row, printed in TABLE_1.items()}
        timed = [time_two_depths(recipe, printed.odn.depth, printed.full.depth) for recipe, printed in rows.items()]
        write_csv(file, list(chain.from_iterable(timed)))
    return pd.read_csv(file)


def read_results(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return a table of a profile's latency measurements of two different networks, with not_comparable (a reason)."""
    runs = common.read_finished_runs(results_dir, profile, "odn").itertuples()
    files = {run.folder / RESULTS_FILE: run.not_comparable for run in runs} | {results_dir / profile / RESULTS_FILE: ""}
    tables = [pd.read_csv(file).assign(not_comparable=why) for file, why in files.items() if file.exists()]
    return pd.concat([pd.DataFrame({"macs_ratio": []}), *tables], ignore_index=True).query("macs_ratio > 1")


def describe_speed(results: pd.DataFrame) -> str:
    """Return how many times faster the optimally deep networks are, medians by batch, beside their MACs, as text."""
    ratios = results.groupby("batch")[["latency_ratio", "macs_ratio"]].median()
    form = "batch {:g}: {:.1f} times as fast, for {:.1f} times fewer MACs".format
    return ", ".join(form(*of_batch) for of_batch in ratios.itertuples())


def judge_claim(results: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): do fewer MACs mean less latency? Measurements at full width take precedence."""
    comparable = results[results["not_comparable"] == ""]
    judged = results if comparable.empty else comparable
    faster = (judged["latency_ratio"] > 1).mean()
    widths = ", ".join(f"{width:g}" for width in sorted(judged["width"].unique()))
    sentence = (
        f"{len(judged)} measurements on a CPU, no edge device ({judged['row'].nunique()} rows, width {widths}): the "
        f"optimally deep network is faster in {faster:.0%}, medians: {describe_speed(judged)}"
    )
    if comparable.empty:
        return "not comparable", f"{judged['not_comparable'].iloc[0]}: {sentence}"
    holds = common.judge_for_datasets(True, set(judged["row"])).replace(common.CLAIM_HOLDS, "holds on a CPU", 1)
    return (holds if faster == 1 else common.CLAIM_OPEN if faster > 0.5 else common.CLAIM_FAILS), sentence
