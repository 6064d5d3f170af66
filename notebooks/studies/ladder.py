"""The ladder: Algorithm 1 at equal training, with networks of several widths and depths instead of depths alone.

A rung is a network of the architecture `chain`, about twice as large as the one before, and its training an ordinary
run: rule `equal`, one depth, a folder of its own. So a climb that was interrupted goes on where it was.
"""

import dataclasses
from bisect import bisect
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from odnlib import metrics, models, recipes
from odnlib.architectures import ARCHITECTURES
from odnlib.data import Dataset, Split
from odnlib.files import read_json, write_json
from odnlib.recipes import Recipe, RecipeError
from studies import export

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
    shared = {"variant": "odn", "profile": profile, "rule": "equal", "architecture": ARCHITECTURE, **settings}
    named = [{"width": width, "first_depth": depth, "last_depth": depth} for width, depth in ladder]
    return recipes.resolve_all({"row": row, "seed": seed, **shared, **network} for network in named)


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
        if round(tried[-1].accuracy_pct, 6) >= goal_pct:
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
