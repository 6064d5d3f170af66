"""A second opinion on multiply-accumulates: those that the counter thop finds.

thop counts 4 for each element entering a BatchNorm where the paper counts 5, and nothing for the average pool (see
`odnlib.metrics` for the paper's rule).
"""

from __future__ import annotations

import copy

import pandas as pd
import thop
import torch
from torch import nn

from odnlib import metrics, models
from odnlib.data import DATASETS
from odnlib.paper import TABLE_1


def thop_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image of shape (C, H, W) by thop's rule."""
    profiled = copy.deepcopy(network).eval()  # thop adds buffers to what it profiles
    image = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
    return int(thop.profile(profiled, inputs=(image,), verbose=False)[0])


def table() -> pd.DataFrame:
    """Both counts, in millions, of the networks of Table I, beside what it prints."""
    lines = []
    for row, printed in TABLE_1.items():
        dataset = DATASETS[row]
        whole = models.build(printed.architecture, dataset.image_shape[0], dataset.classes)
        for variant in ("full", "odn"):
            line = getattr(printed, variant)
            cut = whole.truncate(line.depth)
            counts = [count(cut, dataset.image_shape) / 1e6 for count in (metrics.macs, thop_macs)]
            lines.append((row, variant, line.macs_m, *counts))
    return pd.DataFrame(lines, columns=["row", "variant", "paper", "paper's rule", "thop"])
