"""What Table I measures, for any network: parameters, bytes on disk, multiply-accumulates, accuracy.

Convention: a MAC is one multiplication and one addition. The paper prints under "FLOPs" the MACs of convolutions and
linear layers, plus 5 per element entering a BatchNorm, plus 1 per element entering the average pool; activations and
additions are free. `macs` counts by that rule, `thop_macs` by thop's own.
"""

from __future__ import annotations

import copy
import io
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from odnlib.architectures import GlobalAveragePool
from odnlib.data import Split

EVALUATION_BATCH = 1000  # images of up to 64x64 pixels

# What one module costs by the paper's rule, from (module, input, output).
PAPER_RULE: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], int]] = {
    nn.Conv2d: lambda module, x, y: y.numel() * module.weight[0].numel(),
    nn.Linear: lambda module, x, y: y.numel() * module.in_features,
    nn.BatchNorm2d: lambda module, x, y: 5 * x.numel(),
    GlobalAveragePool: lambda module, x, y: x.numel(),
}


def parameters(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_bytes(network: nn.Module) -> int:
    """Bytes of the file that `torch.save` makes of the state dict (float32, BatchNorm's buffers included)."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.tell()


def _blank_image(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    return torch.zeros(1, *image_shape, device=next(network.parameters()).device)


@torch.inference_mode()
def macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image of shape (C, H, W) by the paper's rule."""
    counts: list[int] = []
    handles = [
        module.register_forward_hook(lambda m, x, y, rule=rule: counts.append(rule(m, x[0], y)))
        for module in network.modules()
        if (rule := PAPER_RULE.get(type(module)))
    ]
    was_training = network.training
    try:
        network.eval()(_blank_image(network, image_shape))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return sum(counts)


def thop_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image of shape (C, H, W) as thop counts them.

    thop adds buffers to what it profiles, so it is given a copy.
    """
    import thop

    profiled = copy.deepcopy(network).eval()
    return int(thop.profile(profiled, inputs=(_blank_image(profiled, image_shape),), verbose=False)[0])


def structure(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """The structural columns of Table I for `network`: params, size_mb (10^6 bytes), macs_m (10^6)."""
    return {
        "params": parameters(network),
        "size_mb": size_bytes(network) / 1e6,
        "macs_m": macs(network, image_shape) / 1e6,
    }


def evaluation_batch(image_shape: tuple[int, int, int]) -> int:
    """How many images of a shape (C, H, W) are evaluated at a time."""
    _, height, width = image_shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 64**2 // (height * width)))


@torch.inference_mode()
def evaluate(
    network: nn.Module, split: Split, forward: Callable[[Tensor], Tensor] | None = None
) -> tuple[float, list[float]]:
    """(mean loss, accuracy in % of each exit) over every image of the split, each counted once.

    Args:
        forward: images (N, C, H, W) -> logits (exits, N, classes); by default `network` itself as the only exit.
    """
    forward = forward or (lambda images: network(images)[None])
    network.eval()
    loss, correct = 0.0, 0
    for images, labels in split.batches(evaluation_batch(split.dataset.image_shape)):
        logits = forward(images)
        loss = loss + functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits))) * len(labels)
        correct = correct + (logits.argmax(-1) == labels).sum(-1)
    return float(loss) / len(split), [100 * hits / len(split) for hits in correct.tolist()]


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each task over `rounds`, all taken in turns after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}


@torch.inference_mode()
def latency_ms(
    networks: dict[str, nn.Module], image_shape: tuple[int, int, int], batch: int, rounds: int = 9
) -> dict[str, float]:
    """Milliseconds for one batch of images of shape (C, H, W), medians over `rounds` taken in turns."""
    images = torch.rand(batch, *image_shape).contiguous(memory_format=torch.channels_last)
    tasks = {}
    for name, network in networks.items():
        own = images.to(next(network.parameters()).device)
        tasks[name] = lambda network=network, own=own: network(own)
        network.eval()
    return in_turns(tasks, rounds)
