"""Measures a network as Table I does: parameters, bytes on disk, multiply-accumulates (MACs), accuracy.

A MAC is one multiplication and one addition. The paper's column "FLOPs" counts the MACs of convolutions and linear
layers, plus 5 per element entering a BatchNorm and 1 per element entering the average pool.
"""

import copy
import io
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from odnlib.architectures import GlobalAveragePool
from odnlib.data import Split
from odnlib.models import MultiExitNetwork

Shape = tuple[int, int, int]  # of an image: channels, height, width
Forward = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> logits (exits, N, classes)
EVALUATION_BATCH = 1000  # images of up to 64x64 pixels

PAPER_RULE: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], int]] = {  # cost by module, input, output
    nn.Conv2d: lambda module, x, y: y.numel() * module.weight[0].numel(),
    nn.Linear: lambda module, x, y: y.numel() * module.in_features,
    nn.BatchNorm2d: lambda module, x, y: 5 * x.numel(),
    GlobalAveragePool: lambda module, x, y: x.numel(),
}


def parameters(network: nn.Module) -> int:
    """Return the number of trainable scalar parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_bytes(network: nn.Module) -> int:
    """Return the bytes of the state dict (float32, BatchNorm buffers included) as `torch.save` writes it."""
    torch.save(network.state_dict(), file := io.BytesIO())
    return file.tell()


@torch.inference_mode()
def macs(network: nn.Module, image_shape: Shape) -> int:
    """Return the multiply-accumulates for one image, counted by the paper's rule on a copy of the network."""
    counts, counted = [], copy.deepcopy(network).eval()
    for module in counted.modules():
        if rule := PAPER_RULE.get(type(module)):
            module.register_forward_hook(lambda m, x, y, rule=rule: counts.append(rule(m, x[0], y)))
    counted(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    return sum(counts)


def structure(network: nn.Module, image_shape: Shape) -> dict[str, float]:
    """Return what Table I lists without training: params, size_mb (10^6 bytes), macs_m (millions per image)."""
    size_mb, macs_m = size_bytes(network) / 1e6, macs(network, image_shape) / 1e6
    return {"params": parameters(network), "size_mb": size_mb, "macs_m": macs_m}


def structure_per_depth(network: MultiExitNetwork, image_shape: Shape, last_depth: int) -> list[dict]:
    """Return, for each depth up to `last_depth`, a dict of depth and the truncated network's `structure`."""
    return [{"depth": d, **structure(network.truncate(d), image_shape)} for d in range(1, last_depth + 1)]


def evaluation_batch(image_shape: Shape) -> int:
    """Return how many images of this shape to evaluate at a time."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 64**2 // math.prod(image_shape[1:])))


@torch.inference_mode()
def evaluate(network: nn.Module, split: Split, forward: Forward | None = None) -> tuple[float, list[float]]:
    """Return (mean loss, list of each exit's accuracy in %) over all images of a split.

    `forward` gives logits (exits, N, classes); by default `network` is the only exit. It is left in evaluation mode.
    """
    forward = forward or (lambda images: network(images)[None])
    network.eval()
    loss, correct = 0.0, 0
    for images, labels in split.batches(evaluation_batch(split.dataset.image_shape)):
        logits = forward(images)
        loss = loss + nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits))) * len(labels)
        correct = correct + (logits.argmax(-1) == labels).sum(-1)
    return float(loss) / len(split), [100 * hits / len(split) for hits in correct.tolist()]
