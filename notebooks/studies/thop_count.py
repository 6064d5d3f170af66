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


def count_macs_by_thop(network: torch.nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return thop's multiply-accumulates of a network on the CPU, for one image of shape (C, H, W)."""
    profiled = copy.deepcopy(network).eval()  # thop adds buffers to what it profiles
    return int(thop.profile(profiled, inputs=(torch.zeros(1, *image_shape),), verbose=False)[0])


def compare_macs() -> pd.DataFrame:
    """Return a table of the MACs, in millions, of Table I's networks: as printed, by the paper's rule, and by thop."""
    counted = []
    for row, printed in TABLE_1.items():
        shape, classes = DATASETS[row].image_shape, DATASETS[row].classes
        whole = models.build(printed.architecture, shape[0], classes)
        for variant, paper in {"full": printed.full, "odn": printed.odn}.items():
            cut = whole.truncate(paper.depth)
            macs = metrics.count_macs(cut, shape), count_macs_by_thop(cut, shape)
            counted.append((row, variant, paper.macs_m, *(count / 1e6 for count in macs)))
    return pd.DataFrame(counted, columns=["row", "variant", "paper", "paper's rule", "thop"])
