"""Notebook 08: the speed of training steps and warm-up against the machine's limit, and what searches cost."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.nn import functional

from odnlib import models
from odnlib.data import DATASETS, Data, Split
from odnlib.experiment import keep_freed_memory
from odnlib.files import describe_processor
from odnlib.recipes import resolve
from odnlib.trainer import ALL_DEPTHS, Run
from studies import common, plots

MACS_PER_MATRIX_PRODUCT = 2048**3  # multiply-accumulates of one of `make_matrix_products`
UNITS_OF_MEASUREMENT = {"rate: more is better": ".*/s", "cost: less is better": "TMAC|MMAC|s|ms"}  # as patterns
TITLE_OF_MEASURE = {  # patterns: what is divided by what
    "step_vs_textbook": "training step / a textbook loop's", "step_share_of_matmul": "training step / a matrix product",
    "bfloat16_vs_float32": "training step: bfloat16 / float32", "warmup_vs_prefixes": "warm-up in one pass / in 16",
    "latency_odn_vs_full": "latency: cut at depth 2 / whole", "macs_odn_vs_full": "MACs: cut at depth 2 / whole",
}  # fmt: skip
PROBLEM_COLUMNS = ["row", "embedded", "architecture", "width", "goal_pct", "settings"]  # what a search has to solve
AVERAGED_COLUMNS = ["depth", "met_goal", "train_tmacs", "seconds", "val_acc_pct", "test_acc_pct"]


def make_record(measure: str, ours: float, reference: float, unit: str, n: int) -> dict:
    """Return a record of benchmark.csv: a measure, ours, reference (in `unit`), their ratio, n repetitions, machine."""
    machine = f"{describe_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    numbers = {"ours": ours, "reference": reference, "ratio": ours / reference}
    return {"measure": measure, **numbers, "unit": unit, "n": n, "machine": machine}


def make_random_data(row: str, images: int) -> Data:
    """Return a `Data` of random bytes shaped like a dataset's (`row`) images, the same `images` in every split."""
    dataset, random = DATASETS[row], torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, *dataset.image_shape), dtype=torch.uint8, generator=random)
    split = Split(pixels, torch.randint(dataset.classes, (images,), generator=random), dataset)
    return Data(split, split, split)


def start_run_on_random_images(row: str, depth: int, images: int, **overrides: object) -> Run:
    """Return a trainer's `Run` with a dataset's (`row`) settings on random images that never saves, ready to train a
    depth (ALL_DEPTHS: the warm-up). Freed memory is kept from now on, as in real runs; whatever is timed later has
    that, too.
    """
    keep_freed_memory()
    recipe, dataset = resolve(row, profile="paper", **overrides), DATASETS[row]
    network = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    run = Run(recipe, network.to(memory_format=torch.channels_last), make_random_data(row, images), Path(os.devnull))
    run.saved_at = math.inf
    run.begin_depth(depth)
    return run


def make_training_epoch(row: str, depth: int, images: int, **overrides: object) -> Callable[[], None]:
    """Return a function, to be timed, that trains a depth for an epoch on so many random images with our trainer."""
    run = start_run_on_random_images(row, depth, images, **overrides)

    def once() -> None:
        run.seen, run.loss_sum, run.correct_sum = 0, 0.0, 0
        run.train_epoch("warmup" if depth == ALL_DEPTHS else "depth", depth, 0, lambda part: 0.01)

    return once


def make_released_warmup_epoch(row: str, images: int) -> Callable[[], None]:
    """Return a function that trains a warm-up epoch on random images as the released code does: a pass per depth."""
    run = start_run_on_random_images(row, ALL_DEPTHS, images)

    def once() -> None:
        for batch, labels in run.data.train.shuffled_batches(run.recipe.batch_size, False, torch.Generator()):
            run.optimizer.zero_grad()
            for depth in range(run.network.max_depth, 0, -1):
                functional.cross_entropy(run.network(batch, depth), labels).backward()
            run.optimizer.step()

    return once


def make_matrix_products(dtype: torch.dtype = torch.float32) -> dict[str, Callable[[], object]]:
    """Return two functions, by name, that multiply two 2048 x 2048 matrices on the CPU; the faster is the machine's
    limit (torch's float32 product is MKL's, slow on other makers' processors; convolutions are oneDNN's).
    """
    left, right = torch.randn(2, 2048, 2048).to(dtype)
    image, kernels = left.T[None, :, :, None].contiguous(memory_format=torch.channels_last), right.T[:, :, None, None]
    return {"matmul": lambda: left @ right, "matmul by convolution": lambda: functional.conv2d(image, kernels)}


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU has bfloat16 instructions; without them it is many times slower than in float32."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def count_training_macs(row: str, depth: int, images: int) -> int:
    """Return the MACs of training a depth at width 64 on so many images once: three times the forward pass's."""
    return 3 * images * start_run_on_random_images(row, depth, images).macs[depth - 1]


def read_search_costs(results_dir: Path | str) -> pd.DataFrame:
    """Return a table of what finished searches by rules `equal` and `released` with the same problem to solve
    (`PROBLEM_COLUMNS`), and whole networks, cost: one row per profile, rule and variant with means over n seeds
    (`AVERAGED_COLUMNS`), and macs_of_released, the training MACs divided by those of the longest released search.
    """
    varied = {*PROBLEM_COLUMNS, "target_pct", "tolerance_pct", *common.SETTINGS_COMPARABLE_WITH_PAPER}
    runs = common.read_finished_runs(results_dir, varied=varied)
    runs["seconds"] = [pd.read_csv(folder / "timing.csv")["seconds"].sum() for folder in runs["folder"]]
    rules = ["equal", "released"]
    kinds = runs[runs["rule"].isin(rules)].groupby([*PROBLEM_COLUMNS, "profile", "rule", "variant"])
    costs = kinds[AVERAGED_COLUMNS].mean().assign(n=kinds.size()).reset_index()
    searches = costs[costs["variant"] == "odn"]
    longest = searches.pivot_table("train_tmacs", PROBLEM_COLUMNS, "rule", "max").reindex(columns=rules)
    costs = costs.join(longest.dropna()["released"], on=PROBLEM_COLUMNS, how="inner").reset_index(drop=True)
    return costs.assign(macs_of_released=costs["train_tmacs"] / costs.pop("released"))


def draw_measurements(measured: pd.DataFrame) -> Figure:
    """Draw each measure of benchmark.csv as ours / reference (each has its own baseline), rates and costs apart, but
    for the searches' (by rule `fast`, which is gone).
    """
    measured = measured[~measured["measure"].str.startswith("search_")]
    kinds = {better: measured[measured["unit"].str.fullmatch(x)] for better, x in UNITS_OF_MEASUREMENT.items()}
    heights = [len(kind) + 1 for kind in kinds.values()]
    drawn, axes = plots.make_axes(2, 1, 1.6 + 0.22 * len(measured), height_ratios=heights)
    for axis, (better, kind) in zip(axes, kinds.items(), strict=True):
        names = kind["measure"].replace(TITLE_OF_MEASURE, regex=True)
        axis.hlines(names, 1, kind["ratio"], color=plots.COLOR_FOUND, linewidth=3)
        axis.plot(kind["ratio"], names, "o", color=plots.COLOR_FOUND)
        axis.axvline(1, color="0.3", linewidth=1)
        axis.set(xscale="log", xlabel=f"ours / reference ({better})", xmargin=0.15, ymargin=0.1)
        plots.label_log_axis(axis.xaxis, 2, 5)
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", labelsize=8)
        axis.invert_yaxis()
        for place, ratio in enumerate(kind["ratio"]):
            side = "left" if ratio >= 1 else "right"
            axis.annotate(f"  {ratio:.3g}  ", (ratio, place), va="center", ha=side, fontsize=8)
    machine = measured["machine"].iloc[0]
    return plots.write_below(drawn, f"steps, warm-up and latency at full width - {machine}")


def write_results(results_dir: Path | str, profile: str) -> None:
    """Draw the benchmark figure of a profile from the benchmark.csv that notebook 08 wrote, if there is one."""
    if (file := Path(results_dir) / profile / "benchmark.csv").exists():
        plots.save_figure(draw_measurements(pd.read_csv(file)), file.parent / "figures" / "benchmark.png")
