"""The ladder: Algorithm 1 at equal training, with networks of several widths and depths instead of depths alone.

A rung of it is a network of the architecture `chain`, about twice as large as the one before, and its training an
ordinary run: rule `equal`, one depth, a folder of its own. So a climb that was interrupted goes on where it was.
"""

import dataclasses
from bisect import bisect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional

from odnlib import experiment, metrics, models, recipes
from odnlib.architectures import ARCHITECTURES
from odnlib.data import Data, Dataset, Split
from odnlib.files import read_json, write_json
from odnlib.recipes import Recipe, RecipeError
from studies import export, latency, plots

WEIGHT_DECAY = 2e-3  # four times the usual, better on held-back photographs (results/notes.md)
LADDER_ARCHITECTURE = "chain"
LADDER_WIDTHS = (8, 11, 16, 23, 32, 45, 64)  # of the deepest network: each has twice the bytes of the one before
NARROWEST = 4  # of the deepest network, where nothing else fits into a number of bytes
FEWEST_PIXELS_LEFT = 4  # a side, that the deepest network leaves of an image


class TriedNetwork(NamedTuple):
    """Holds a network that was tried: its recipe by one seed or two, and the validation accuracy, in %, of each."""

    recipes: tuple[Recipe, ...]
    accuracies_pct: tuple[float, ...]

    @property
    def accuracy_pct(self) -> float:
        """The mean of the validation accuracies, in %, by which the network is judged."""
        return float(np.mean(self.accuracies_pct))

    def meets(self, goal_pct: float) -> bool:
        """Return whether that mean is at least `goal_pct`."""
        return round(self.accuracy_pct, 6) >= goal_pct

    @property
    def best_recipe(self) -> Recipe:
        """The recipe of the more accurate seed: the one to take."""
        return self.recipes[int(np.argmax(self.accuracies_pct))]


def count_network_bytes(network: tuple[int, int], dataset: Dataset) -> int:
    """Return the bytes on disk of a network (width, depth) of the ladder for a dataset's channels and classes."""
    width, depth = network
    with torch.device("meta"):  # without the time that initial weights take
        untrained = models.build(LADDER_ARCHITECTURE, dataset.image_shape[0], dataset.classes, width).truncate(depth)
    return metrics.size_bytes(untrained.to_empty(device="cpu"))


def list_networks(dataset: Dataset, max_bytes: int = 0) -> list[tuple[int, int]]:
    """Return the ladder for a dataset's image size as (width, depth), smallest first: the narrowest network at growing
    depth, then the deepest at growing width. With `max_bytes` (0: any) those that fit, and on top the widest that fits;
    RecipeError if none does.
    """
    halvings = int(np.log2(min(dataset.image_shape[1:]) / (FEWEST_PIXELS_LEFT - 0.5)))  # 7 pixels become 4
    deepest = min(max(halvings, 1), ARCHITECTURES[LADDER_ARCHITECTURE].depth)
    ladder = [(LADDER_WIDTHS[0], depth) for depth in range(1, deepest)] + [(width, deepest) for width in LADDER_WIDTHS]
    if not max_bytes:
        return ladder
    fitting = [network for network in ladder if count_network_bytes(network, dataset) <= max_bytes]
    if not fitting:
        least = count_network_bytes(ladder[0], dataset)
        raise RecipeError(f"max_bytes {max_bytes:,}: the smallest network here has {least:,}: allow at least as many")
    widths = range(NARROWEST, LADDER_WIDTHS[-1] + 1)
    widest = NARROWEST - 1 + bisect(widths, max_bytes, key=lambda x: count_network_bytes((x, deepest), dataset))
    least = count_network_bytes(fitting[-1], dataset)
    larger = widest >= NARROWEST and count_network_bytes((widest, deepest), dataset) > least
    return fitting + [(widest, deepest)] * larger


def plan_recipes(row: str, profile: str, seed: int, ladder: list[tuple[int, int]], **settings: object) -> list[Recipe]:
    """Return the recipes of a `ladder`'s networks (width, depth), each trained alone by `equal` on images `row`. Kept
    is the last epoch, whose rate has ended at 0: the best of many epochs on few images is above what it is worth.
    """
    shared = {"row": row, "profile": profile, "seed": seed, "rule": "equal", "weight_decay": WEIGHT_DECAY, **settings}
    shared |= {"keep_last": True, "target_pct": 100.0}  # none is a goal to its training, so that a new target finds it
    shared |= {"architecture": LADDER_ARCHITECTURE}
    named = [{"width": width, "first_depth": depth, "last_depth": depth} for width, depth in ladder]
    return recipes.resolve_all(shared | network for network in named)


def estimate_minutes(ladder: list[Recipe], data: Data) -> pd.Series:
    """Return the minutes that training takes up to each recipe, by one seed each, judged by a few steps on `data`."""
    dataset, seen = data.train.dataset, len(data.train) + len(data.validation) / 3  # of a step a third is forward
    images, labels = next(data.train.batches(ladder[0].batch_size))
    milliseconds = []
    for recipe in ladder:
        network = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        network = network.to(images.device, memory_format=torch.channels_last)

        def step(network: nn.Module = network, depth: int = recipe.last_depth) -> None:
            functional.cross_entropy(network(images, depth), labels).backward()

        steps = latency.time_in_turns({"step": step}, 5)["step"]  # the least: what else a machine does only adds
        milliseconds.append(steps.min() * seen / len(images) * recipe.depth_epochs)
    return pd.Series(milliseconds).cumsum() / 60_000


def tabulate_plan(ladder: list[Recipe], data: Data) -> pd.DataFrame:
    """Return a table of a ladder's networks before training: width, depth, kilobytes and `estimate_minutes`."""
    minutes = estimate_minutes(ladder, data)
    sizes = [count_network_bytes((x.width, x.last_depth), data.train.dataset) / 1000 for x in ladder]
    networks = {"width": [x.width for x in ladder], "depth": [x.last_depth for x in ladder]}
    return pd.DataFrame(networks | {"size_kb": sizes, "minutes up to it": minutes})


def interval_pct(accuracy_pct: float, images: float) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of an accuracy in %, on so many images (Agresti and Coull, 1998): around
    the accuracy with two right and two wrong answers added, so that it is not symmetrical.
    """
    n = images + 4
    p = (accuracy_pct / 100 * images + 2) / n
    half = 1.96 * (p * (1 - p) / n) ** 0.5
    return 100 * np.maximum(p - half, 0), 100 * np.minimum(p + half, 1)


def climb_ladder(
    ladder: list[Recipe], measure: Callable[[Recipe], float], goal_pct: float, images: float
) -> list[TriedNetwork]:
    """Return the networks tried, up to the first that meets the goal, or all of them where none does. `ladder` begins
    with the smallest; `measure` trains what a recipe's run still lacks and returns its accuracy, in %, on so many
    validation `images`. One nearer to the goal, on either side, than these can tell is trained by a second seed, and
    the mean decides: a lucky hit is as likely as an unlucky miss.
    """
    tried = []
    for recipe in ladder:
        seeds = [recipe]
        accuracies_pct = [measure(recipe)]
        low, high = interval_pct(accuracies_pct[0], images)
        if low < goal_pct < high:
            print(f"too near {goal_pct:g} % to tell: a second seed is trained, and the mean decides")
            seeds.append(dataclasses.replace(recipe, seed=recipe.seed + 1))
            accuracies_pct.append(measure(seeds[1]))
            print(f"mean {np.mean(accuracies_pct):.1f} %")
        tried.append(TriedNetwork(tuple(seeds), tuple(accuracies_pct)))
        if tried[-1].meets(goal_pct):
            break
    return tried


def measure_test_accuracy_once(folder: Path, split: Split) -> float:
    """Return the test accuracy, in %, of a finished run: measured on `split` unless its result has it, then kept."""
    result = read_json(folder / "result.json")
    if result["test_acc_pct"] is None:
        network = export.load_network(folder, split.dataset).to(split.images.device)
        result |= {"test_acc_pct": metrics.evaluate(network, split)[1][0], "test_images": len(split)}
        write_json(folder / "result.json", result)
    return result["test_acc_pct"]


def tabulate_tried_networks(
    tried: list[TriedNetwork], best: TriedNetwork, results_dir: Path, validation: Split, images: float
) -> pd.DataFrame:
    """Return a table, one row per network tried: width, depth, seeds, judged_pct (their mean), its interval on
    so many `images` (low, high), params, size_kb, macs_m, latency_ms of one image on the CPU (the least of
    some rounds: what else a machine does only adds to it), chosen (it is `best`).
    """
    folders = [experiment.folder_of_run(network.best_recipe, results_dir) for network in tried]
    image, rows = validation.normalise(validation.images[:1].cpu()), []
    trained = [export.load_network(folder, validation.dataset) for folder in folders]
    with torch.inference_mode():
        taken = latency.time_in_turns({i: partial(network, image) for i, network in enumerate(trained)}).min()
    for i, (network, run) in enumerate(zip(tried, map(recipes.read_run, folders), strict=True)):
        judged_pct = network.accuracy_pct
        row = {"width": run.width, "depth": run.depth, "seeds": len(network.recipes), "judged_pct": judged_pct}
        row |= dict(zip(("low", "high"), interval_pct(judged_pct, images), strict=True))
        row |= {"params": run.params, "size_kb": 1000 * run.size_mb}
        rows.append(row | {"macs_m": run.macs_m, "latency_ms": taken[i], "chosen": network == best})
    return pd.DataFrame(rows)


def draw_tried_networks(offered: pd.DataFrame, goal_pct: float, simple_pct: dict[str, float]) -> Figure:
    """Draw judged_pct against bytes of the networks `offered`, the goal, and `simple_pct`, accuracies by name, in %."""
    drawn, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    place = offered["size_kb"], offered["judged_pct"]
    bars = [offered["judged_pct"] - offered["low"], offered["high"] - offered["judged_pct"]]
    axis.errorbar(*place, bars, fmt="o-", color=plots.COLOR_FOUND, capsize=3, label="networks")
    for width, depth, *point in zip(offered["width"], offered["depth"], *place, strict=True):
        beside = {"xytext": (6, -12), "textcoords": "offset points", "fontsize": 9}
        axis.annotate(f"{width} x {depth}", point, **beside)
    take, ring = offered[offered["chosen"]], {"ms": 14, "fillstyle": "none", "mew": 2, "label": "chosen"}
    axis.plot(take["size_kb"], take["judged_pct"], "o", color=plots.COLOR_CHOSEN, **ring)
    axis.axhline(goal_pct, color=plots.COLOR_GOAL, linestyle="--", label=f"your {goal_pct:g} %")
    for (name, accuracy_pct), line in zip(simple_pct.items(), (":", "-."), strict=True):
        axis.axhline(accuracy_pct, color="0.5", linestyle=line, label=name)
    axis.set(xscale="log", xlabel="size on disk (kB)", ylabel="recognised on validation (%)", xmargin=0.15)
    plots.label_log_axis(axis.xaxis, 2, 5)
    plots.legend_above(drawn, 3)
    return plots.write_below(drawn, "width x depth of each network; bars: 95 % intervals from the validation images")
