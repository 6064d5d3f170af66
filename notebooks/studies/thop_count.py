"""Counts multiply-accumulates with the package thop, to check the paper's and ours. It counts 4 per element entering a
BatchNorm, the paper 5 (`odnlib.metrics`), and nothing for the average pool.
"""

import copy

import pandas as pd
import thop
import torch

from odnlib import metrics, models
from odnlib.data import DATASETS
from odnlib.paper import TABLE_1


def thop_macs(network: torch.nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return thop's multiply-accumulates of a network on the CPU, for one image of shape (C, H, W)."""
    profiled = copy.deepcopy(network).eval()  # thop adds buffers to what it profiles
    return int(thop.profile(profiled, inputs=(torch.zeros(1, *image_shape),), verbose=False)[0])


def table() -> pd.DataFrame:
    """Return the MACs, in millions, of Table I's networks: in the paper, counted by its rule, and by thop."""
    lines = []
    for row, printed in TABLE_1.items():
        shape, classes = DATASETS[row].image_shape, DATASETS[row].classes
        whole = models.build(printed.architecture, shape[0], classes)
        for variant, line in {"full": printed.full, "odn": printed.odn}.items():
            cut = whole.truncate(line.depth)
            lines.append((row, variant, line.macs_m, metrics.count_macs(cut, shape) / 1e6, thop_macs(cut, shape) / 1e6))
    return pd.DataFrame(lines, columns=["row", "variant", "paper", "paper's rule", "thop"])
