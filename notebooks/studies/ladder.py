"""The ladder: Algorithm 1 at equal training, with networks of several widths and depths instead of depths alone.

A rung is a network of the architecture `chain`, about twice as large as the one before, and its training an ordinary
run: rule `equal`, one depth, a folder of its own. So a climb that was interrupted goes on where it was.
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
from torch.nn import functional

from odnlib import experiment, metrics, models, recipes
from odnlib.architectures import ARCHITECTURES
from odnlib.data import Data, Dataset, Split
from odnlib.files import read_json, write_json
from odnlib.recipes import Recipe, RecipeError
from studies import export, latency, plots

ARCHITECTURE = "chain"
WIDTHS = (8, 11, 16, 23, 32, 45, 64)  # of the deepest network: each has twice the bytes of the one before
FEWEST_PIXELS = 4  # a side, that the deepest network leaves of an image


class Rung(NamedTuple):
    """Holds a network that was tried: its recipe by one seed or two, and the validation accuracy, in %, of each."""

    recipes: tuple[Recipe, ...]
    accuracies_pct: tuple[float, ...]

    @property
    def accuracy_pct(self) -> float:
        """The mean, by which the network is judged."""
        return float(np.mean(self.accuracies_pct))

    def met(self, goal_pct: float) -> bool:
        return round(self.accuracy_pct, 6) >= goal_pct

    @property
    def best(self) -> Recipe:
        """The recipe of the more accurate seed: the one to take."""
        return self.recipes[int(np.argmax(self.accuracies_pct))]


def size_bytes(network: tuple[int, int], dataset: Dataset) -> int:
    """Return the bytes on disk of a network (width, depth) for a dataset's channels and classes."""
    width, depth = network
    with torch.device("meta"):  # without the time that initial weights take
        untrained = models.build(ARCHITECTURE, dataset.image_shape[0], dataset.classes, width).truncate(depth)
    return metrics.size_bytes(untrained.to_empty(device="cpu"))


def networks(dataset: Dataset, max_bytes: int = 0) -> list[tuple[int, int]]:
    """Return the ladder as (width, depth), smallest first: the narrowest network at growing depth, then the deepest one
    at growing width. With `max_bytes` (0: any) those that fit, and on top the widest that fits.

    Raises:
        RecipeError: none fits.
    """
    halvings = int(np.log2(min(dataset.image_shape[1:]) / (FEWEST_PIXELS - 0.5)))  # 7 pixels become 4
    deepest = min(max(halvings, 1), ARCHITECTURES[ARCHITECTURE].depth)
    ladder = [(WIDTHS[0], depth) for depth in range(1, deepest)] + [(width, deepest) for width in WIDTHS]
    if not max_bytes:
        return ladder
    fitting = [network for network in ladder if size_bytes(network, dataset) <= max_bytes]
    if not fitting:
        least = size_bytes(ladder[0], dataset)
        raise RecipeError(f"max_bytes {max_bytes:,}: the smallest network here has {least:,}: allow at least as many")
    every = range(WIDTHS[0], WIDTHS[-1] + 1)
    widest = bisect(every, max_bytes, key=lambda width: size_bytes((width, deepest), dataset)) + WIDTHS[0] - 1
    return fitting + [(widest, deepest)] * (widest not in (*WIDTHS, WIDTHS[0] - 1))


def rungs(row: str, profile: str, seed: int, ladder: list[tuple[int, int]], **settings: object) -> list[Recipe]:
    """Return the recipe of each network of a `ladder`: trained alone by the rule `equal`, all by the same settings."""
    shared = {"variant": "odn", "profile": profile, "rule": "equal", **settings, "architecture": ARCHITECTURE}
    named = [{"width": width, "first_depth": depth, "last_depth": depth} for width, depth in ladder]
    return recipes.resolve_all({"row": row, "seed": seed, **shared, **network} for network in named)


def minutes(ladder: list[Recipe], data: Data) -> pd.Series:
    """Return how long the climb takes up to each rung, one seed a rung, judged by a few training steps."""
    dataset, seen = data.train.dataset, len(data.train) + len(data.validation) / 3  # of a step a third is forward
    images, labels = next(data.train.batches(ladder[0].batch_size))
    milliseconds = []
    for recipe in ladder:
        network = models.build(ARCHITECTURE, dataset.image_shape[0], dataset.classes, recipe.width).to(images.device)
        logits = partial(network.to(memory_format=torch.channels_last), images, recipe.last_depth)
        step = latency.in_turns(
            {"": lambda logits=logits: functional.cross_entropy(logits(), labels).backward()}, 3
        ).median()
        milliseconds.append(step[""] * seen / len(images) * recipe.depth_epochs)
    return pd.Series(milliseconds).cumsum() / 60_000


def points(accuracy_pct: float, images: float) -> float:
    """Return half the 95 % interval of an accuracy on so many images, in points (Agresti and Coull, 1998: sensible for
    few images, and at 100 %).
    """
    n = images + 4
    p = (accuracy_pct / 100 * images + 2) / n
    return 196 * (p * (1 - p) / n) ** 0.5


def climb_ladder(ladder: list[Recipe], measure: Callable[[Recipe], float], goal_pct: float, images: int) -> list[Rung]:
    """Return the rungs up to the first that meets the goal, or all of them where none does.

    One whose accuracy is nearer to the goal, on either side, than validation images can tell is trained by a second
    seed, and the mean decides: a lucky hit is as likely as an unlucky miss.

    Args:
        ladder: from the smallest network to the largest.
        measure: trains what a recipe's run still lacks and returns its validation accuracy in %.
        images: how many there are for validation.
    """
    tried = []
    for recipe in ladder:
        seeds = [recipe]
        accuracies_pct = [measure(recipe)]
        if abs(accuracies_pct[0] - goal_pct) < points(accuracies_pct[0], images):
            seeds.append(dataclasses.replace(recipe, seed=recipe.seed + 1))
            accuracies_pct.append(measure(seeds[1]))
        tried.append(Rung(tuple(seeds), tuple(accuracies_pct)))
        if tried[-1].met(goal_pct):
            break
    return tried


def test_once(folder: Path, split: Split) -> float:
    """Return the test accuracy, in %, of a finished run; measured only if it has not been, and kept with its result."""
    result = read_json(folder / "result.json")
    if result["test_acc_pct"] is None:
        network = export.network_of(folder, split.dataset).to(split.images.device)
        result |= {"test_acc_pct": metrics.evaluate(network, split)[1][0], "test_images": len(split)}
        write_json(folder / "result.json", result)
    return result["test_acc_pct"]


def offered(rungs: list[Rung], best: Rung, results_dir: Path, validation: Split, images: float) -> pd.DataFrame:
    """Return a line per rung tried: width, depth, seeds, judged_pct (their mean), points (half its 95 % interval on so
    many `images`), params, size_mb, macs_m, latency_ms of one image on the CPU, and whether it is the chosen one.
    """
    folders = [experiment.folder_of_run(rung.best, results_dir) for rung in rungs]
    image, lines = validation.normalise(validation.images[:1].cpu()), []
    networks = [export.network_of(folder, validation.dataset) for folder in folders]
    with torch.inference_mode():
        taken = latency.in_turns({i: partial(network, image) for i, network in enumerate(networks)}).median()
    for i, (rung, run) in enumerate(zip(rungs, map(recipes.read_run, folders), strict=True)):
        judged = {"judged_pct": rung.accuracy_pct, "points": points(rung.accuracy_pct, images)}
        line = {"width": run.width, "depth": run.depth, "seeds": len(rung.recipes), **judged}
        line |= {name: getattr(run, name) for name in ("params", "size_mb", "macs_m")}
        lines.append(line | {"latency_ms": taken[i], "chosen": rung == best})
    return pd.DataFrame(lines)


def figure(offered: pd.DataFrame, goal_pct: float, simple_pct: dict[str, float]) -> Figure:
    """Draw judged_pct with its interval against the bytes of all rungs tried, the goal, and what takes no network."""
    drawn, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axis.errorbar(
        "size_mb", "judged_pct", "points", data=offered, fmt="o-", color=plots.FOUND, capsize=3, label="networks"
    )
    for rung in offered.itertuples():
        place = rung.size_mb, rung.judged_pct
        axis.annotate(f"{rung.width} x {rung.depth}", place, (6, -12), textcoords="offset points", fontsize=9)
    take = offered[offered["chosen"]]
    axis.plot(
        take["size_mb"], take["judged_pct"], "o", color=plots.CHOSEN, ms=14, fillstyle="none", mew=2, label="to take"
    )
    axis.axhline(goal_pct, color=plots.GOAL, linestyle="--", label=f"your {goal_pct:g} %")
    for (name, accuracy_pct), line in zip(simple_pct.items(), (":", "-."), strict=True):
        axis.axhline(accuracy_pct, color="0.5", linestyle=line, label=name)
    axis.set(xscale="log", xlabel="size on disk (MB)", ylabel="recognised on validation (%)", xmargin=0.15)
    axis.legend(fontsize=9)
    return plots.small_print(drawn, "width x depth of each network; bars: 95 % intervals from the validation images")
