"""Notebook 08: the speed of training steps and warm-up against the machine's limit, and what searches cost."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
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
from studies import common
from studies.plots import FOUND, WIDTH, save, small_print

MACS_PER_PRODUCT = 2048**3  # multiply-accumulates of one of `matrix_products`
KINDS = {"rate: more is better": ".*/s", "cost: less is better": "TMAC|MMAC|s|ms"}  # of measures, with their units
PROBLEM_KEYS = ["row", "embedded", "architecture", "width", "goal_pct", "settings"]  # what a search has to solve
MEANS = ["depth", "met_goal", "train_tmacs", "seconds", "val_acc_pct", "test_acc_pct"]


def line(measure: str, ours: float, reference: float, unit: str, n: int) -> dict:
    """Return one line of benchmark.csv (a dict): ratio = ours / reference; `n` is the number of repetitions."""
    machine = f"{describe_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    numbers = {"ours": ours, "reference": reference, "ratio": ours / reference}
    return {"measure": measure, **numbers, "unit": unit, "n": n, "machine": machine}


def random_data(row: str, images: int) -> Data:
    """Return a Data of random bytes shaped like a dataset's images; speed does not depend on their content."""
    dataset, random = DATASETS[row], torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, *dataset.image_shape), dtype=torch.uint8, generator=random)
    split = Split(pixels, torch.randint(dataset.classes, (images,), generator=random), dataset)
    return Data(split, split, split)


def run_on_random_images(row: str, depth: int, images: int, **overrides: object) -> Run:
    """Return a trainer Run on random images, ready to train a depth (ALL_DEPTHS: the warm-up), that never saves.

    Freed memory is kept from now on, as in real runs; whatever this process times later has that advantage too.
    """
    keep_freed_memory()
    recipe, dataset = resolve(row, profile="paper", **overrides), DATASETS[row]
    network = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    run = Run(recipe, network.to(memory_format=torch.channels_last), random_data(row, images), Path(os.devnull))
    run.saved_at = math.inf
    run.begin_depth(depth)
    return run


def one_pass(row: str, depth: int, images: int, **overrides: object) -> Callable[[], None]:
    """Return a function that trains one epoch on random images with our trainer, to be timed."""
    run = run_on_random_images(row, depth, images, **overrides)

    def once() -> None:
        run.seen, run.loss_sum, run.correct_sum = 0, 0.0, 0
        run.train_epoch("warmup" if depth == ALL_DEPTHS else "depth", depth, 0, lambda part: 0.01)

    return once


def released_warmup_epoch(row: str, images: int) -> Callable[[], None]:
    """Return a function, to be timed, that trains a warm-up epoch as the released code does: a pass per depth."""
    run = run_on_random_images(row, ALL_DEPTHS, images)

    def once() -> None:
        for batch, labels in run.data.train.shuffled_batches(run.recipe.batch_size, False, torch.Generator()):
            run.optimizer.zero_grad()
            for depth in range(run.network.max_depth, 0, -1):
                functional.cross_entropy(run.network(batch, depth), labels).backward()
            run.optimizer.step()

    return once


def matrix_products(dtype: torch.dtype = torch.float32) -> dict[str, Callable[[], object]]:
    """Return two ways, by name, to multiply two 2048 x 2048 matrices; the faster one is the machine's limit.

    torch's own product of float32 matrices is MKL's, slow on other makers' processors; convolutions are oneDNN's.
    """
    left, right = torch.randn(2, 2048, 2048).to(dtype)
    image, kernels = left.T[None, :, :, None].contiguous(memory_format=torch.channels_last), right.T[:, :, None, None]
    return {"matmul": lambda: left @ right, "matmul by convolution": lambda: functional.conv2d(image, kernels)}


def computes_in_bfloat16() -> bool:
    """Return whether the CPU has bfloat16 instructions; without them it is many times slower than in float32."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def training_macs(row: str, depth: int, images: int) -> int:
    """Return the MACs of training a depth on a number of `images` once at full width: three times the forward's."""
    return 3 * images * run_on_random_images(row, depth, images).macs[depth - 1]


def table(results_dir: Path | str) -> pd.DataFrame:
    """Return the cost of finished searches by rules `equal` and `released` on one `PROBLEM_KEYS`, and of full networks.

    A line per profile, rule and variant: means over seeds, and macs_of_released, the training MACs divided by those of
    the longest released search.
    """
    runs = common.finished(
        results_dir, varied={*PROBLEM_KEYS, "target_pct", "tolerance_pct", *common.COMPARABLE_OVERRIDES}
    )
    runs["seconds"] = [pd.read_csv(folder / "timing.csv")["seconds"].sum() for folder in runs["folder"]]
    rules = ["equal", "released"]
    kinds = runs[runs["rule"].isin(rules)].groupby([*PROBLEM_KEYS, "profile", "rule", "variant"])
    lines = kinds[MEANS].mean().assign(n=kinds.size()).reset_index()
    longest = (
        lines[lines["variant"] == "odn"].pivot_table("train_tmacs", PROBLEM_KEYS, "rule", "max").reindex(columns=rules)
    )
    lines = lines.join(longest.dropna()["released"], on=PROBLEM_KEYS, how="inner").reset_index(drop=True)
    return lines.assign(macs_of_released=lines["train_tmacs"] / lines.pop("released"))


def figure(lines: pd.DataFrame) -> Figure:
    """Draw each measure of benchmark.csv as ours / reference (each has its own baseline), rates and costs apart."""
    kinds = {better: lines[lines["unit"].str.fullmatch(units)] for better, units in KINDS.items()}
    heights, size = [len(kind) + 1 for kind in kinds.values()], (WIDTH, 1.6 + 0.22 * len(lines))
    drawn, axes = plt.subplots(2, 1, figsize=size, layout="constrained", height_ratios=heights)
    for axis, (better, kind) in zip(axes, kinds.items(), strict=True):
        names = kind["measure"].str.replace("_", " ")
        axis.hlines(names, 1, kind["ratio"], color=FOUND, linewidth=3)
        axis.plot(kind["ratio"], names, "o", color=FOUND)
        axis.axvline(1, color="0.3", linewidth=1)
        axis.set(xscale="log", xlabel=f"ours / reference ({better})", xmargin=0.15)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", labelsize=8)
        axis.invert_yaxis()
        for place, ratio in enumerate(kind["ratio"]):
            side = "left" if ratio >= 1 else "right"
            axis.annotate(f"  {ratio:.3g}  ", (ratio, place), va="center", ha=side, fontsize=8)
    return small_print(drawn, f"steps, warm-up and latency at full width - {lines['machine'].iloc[0]}")


def write(results_dir: Path | str, profile: str) -> None:
    """Draw the benchmark figure of a profile from the benchmark.csv that notebook 08 wrote, if there is one."""
    if (file := Path(results_dir) / profile / "benchmark.csv").exists():
        save(figure(pd.read_csv(file)), file.parent / "figures" / "benchmark.png")
