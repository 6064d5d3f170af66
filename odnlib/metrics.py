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

ImageShape = tuple[int, int, int]  # of an image: channels, height, width
LogitsFunction = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> logits (exits, N, classes)
LARGEST_EVALUATION_BATCH = 1000  # images, of up to 64x64 pixels

MACS_OF_LAYER: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], int]] = {  # by layer, its input, its output
    nn.Conv2d: lambda module, x, y: y.numel() * module.weight[0].numel(),
    nn.Linear: lambda module, x, y: y.numel() * module.in_features,
    nn.BatchNorm2d: lambda module, x, y: 5 * x.numel(),
    GlobalAveragePool: lambda module, x, y: x.numel(),
}


def count_parameters(network: nn.Module) -> int:
    """Return how many trainable numbers (scalar parameters) a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_bytes(network: nn.Module) -> int:
    """Return the bytes of the file that `torch.save` makes of a network's state dict, BatchNorm buffers included."""
    torch.save(network.state_dict(), file := io.BytesIO())
    return file.tell()


@torch.inference_mode()
def count_macs(network: nn.Module, image_shape: ImageShape) -> int:
    """Return the multiply-accumulates of a network for one image of this shape, counted as the paper's "FLOPs" are."""
    counts, counted = [], copy.deepcopy(network).eval()
    for module in counted.modules():
        if rule := MACS_OF_LAYER.get(type(module)):
            module.register_forward_hook(lambda m, x, y, rule=rule: counts.append(rule(m, x[0], y)))
    counted(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    return sum(counts)


def measure_size_and_macs(network: nn.Module, image_shape: ImageShape) -> dict[str, float]:
    """Return the dict of what Table I lists without training: params, size_mb (10^6 bytes), macs_m (10^6 per image)."""
    size_mb, macs_m = size_bytes(network) / 1e6, count_macs(network, image_shape) / 1e6
    return {"params": count_parameters(network), "size_mb": size_mb, "macs_m": macs_m}


def measure_every_depth(network: MultiExitNetwork, image_shape: ImageShape, last_depth: int) -> list[dict]:
    """Return a dict for each depth 1 to `last_depth`: depth, and params, size_mb, macs_m of the network cut there."""
    return [{"depth": d, **measure_size_and_macs(network.truncate(d), image_shape)} for d in range(1, last_depth + 1)]


def evaluation_batch_size(image_shape: ImageShape) -> int:
    """Return how many images of this shape to evaluate at a time: fewer where they are large."""
    return max(1, min(LARGEST_EVALUATION_BATCH, LARGEST_EVALUATION_BATCH * 64**2 // math.prod(image_shape[1:])))


@torch.inference_mode()
def evaluate(network: nn.Module, split: Split, forward: LogitsFunction | None = None) -> tuple[float, list[float]]:
    """Return (mean cross-entropy, list of the accuracy in % of every exit) of a network over all images of a split.

    `forward` maps images to logits (exits, N, classes); by default the network has one exit. It is left in eval mode.
    """
    forward = forward or (lambda images: network(images)[None])
    network.eval()
    loss, correct = 0.0, 0
    for images, labels in split.batches(evaluation_batch_size(split.dataset.image_shape)):
        logits = forward(images)
        loss = loss + nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits))) * len(labels)
        correct = correct + (logits.argmax(-1) == labels).sum(-1)
    return float(loss) / len(split), [100 * hits / len(split) for hits in correct.tolist()]
