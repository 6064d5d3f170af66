"""A second opinion on multiply-accumulates: those that the counter thop finds.

thop counts 4 for each element entering a BatchNorm where the paper counts 5, and nothing for the average pool (see
`odnlib.metrics` for the paper's rule).
"""

from __future__ import annotations

import copy

import thop
import torch
from torch import nn


def thop_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image of shape (C, H, W) by thop's rule."""
    profiled = copy.deepcopy(network).eval()  # thop adds buffers to what it profiles
    image = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
    return int(thop.profile(profiled, inputs=(image,), verbose=False)[0])
