"""Residual networks with one exit per block (paper, Section III-A), and the networks cut out of them.

Structure is data: `ARCHITECTURES` says which block and how many per stage; the rest is one flat list of blocks and,
beside it, one list of heads. The depth is always an argument, never state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def convolution_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A bias-free convolution that keeps the size at stride 1, and its BatchNorm."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


class ResidualBlock(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 convolution where the shape changes (He et al., 2016)."""

    def __init__(self, body: list[nn.Module], channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(*body)
        same_shape = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Identity() if same_shape else nn.Sequential(*convolution_norm(channels_in, channels_out, 1, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def basic_block(channels_in: int, channels: int, stride: int) -> ResidualBlock:
    """Two 3x3 convolutions."""
    body = [
        *convolution_norm(channels_in, channels, 3, stride),
        nn.ReLU(),
        *convolution_norm(channels, channels, 3),
    ]
    return ResidualBlock(body, channels_in, channels, stride)


def bottleneck_block(channels_in: int, channels: int, stride: int) -> ResidualBlock:
    """1x1, 3x3 and 1x1 convolutions; the last one widens fourfold. The stride sits on the 3x3 one."""
    body = [
        *convolution_norm(channels_in, channels, 1),
        nn.ReLU(),
        *convolution_norm(channels, channels, 3, stride),
        nn.ReLU(),
        *convolution_norm(channels, 4 * channels, 1),
    ]
    return ResidualBlock(body, channels_in, 4 * channels, stride)


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one residual network from another."""

    block: Callable[[int, int, int], ResidualBlock]  # (channels in, channels, stride) -> ResidualBlock
    expansion: int  # channels out of a block / its `channels`
    blocks_per_stage: tuple[int, ...]  # stage s has width * 2^s channels; every stage but the first begins at stride 2

    @property
    def depth(self) -> int:
        """The largest depth D_max (Eq. 1): all blocks."""
        return sum(self.blocks_per_stage)


ARCHITECTURES = {
    "resnet18": Architecture(basic_block, 1, (2, 2, 2, 2)),
    "resnet34": Architecture(basic_block, 1, (3, 4, 6, 3)),
    "resnet50": Architecture(bottleneck_block, 4, (3, 4, 6, 3)),
}


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) -> (N, C). A module, so that `metrics` can see its input; thop counts it as nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class MultiExitNetwork(nn.Module):
    """A residual network with an output layer behind every block (Section III-A).

    Args:
        architecture: a key of `ARCHITECTURES`.
        channels: image channels. classes: outputs of every head. width: channels of the first stage (64 in the paper).
    """

    def __init__(self, architecture: str, channels: int, classes: int, width: int = 64):
        super().__init__()
        table = ARCHITECTURES[architecture]
        self.stem = nn.Sequential(*convolution_norm(channels, width, 3), nn.ReLU())
        self.blocks, self.heads = nn.ModuleList(), nn.ModuleList()
        self.pool = GlobalAveragePool()
        features = width
        for stage, blocks in enumerate(table.blocks_per_stage):
            for position in range(blocks):
                stride = 2 if stage > 0 and position == 0 else 1
                self.blocks.append(table.block(features, width * 2**stage, stride))
                features = width * 2**stage * table.expansion
                self.heads.append(nn.Linear(features, classes))

    @property
    def max_depth(self) -> int:
        return len(self.blocks)

    def _check(self, depth: int) -> None:
        if not 1 <= depth <= self.max_depth:
            raise ValueError(f"depth {depth} does not exist: this network has depths 1 to {self.max_depth}")

    def forward(self, x: Tensor, depth: int) -> Tensor:
        """(N, C, H, W) -> logits (N, classes) of exit `depth`; runs the stem, `depth` blocks and one head only."""
        self._check(depth)
        x = self.stem(x)
        for block in self.blocks[:depth]:
            x = block(x)
        return self.heads[depth - 1](self.pool(x))

    def forward_all(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (D, N, classes) of all D exits from one pass through the blocks."""
        x = self.stem(x)
        logits = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            logits.append(head(self.pool(x)))
        return torch.stack(logits)

    def truncate(self, depth: int) -> TruncatedNetwork:
        """An independent copy of the first `depth` blocks and their head: the network to deploy (Section III-D)."""
        self._check(depth)
        return copy.deepcopy(TruncatedNetwork(self.stem, self.blocks[:depth], self.pool, self.heads[depth - 1]))

    def parameters_at(self, depth: int) -> list[nn.Parameter]:
        """The parameters that exit `depth` depends on."""
        self._check(depth)
        active = [self.stem, *self.blocks[:depth], self.heads[depth - 1]]
        return [parameter for module in active for parameter in module.parameters()]


class TruncatedNetwork(nn.Module):
    """Stem, some blocks, one head, and nothing else: (N, C, H, W) -> logits (N, classes)."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], pool: nn.Module, head: nn.Module):
        super().__init__()
        self.stem, self.blocks, self.pool, self.head = stem, nn.Sequential(*blocks), pool, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))))


@contextmanager
def statistics_of_separate_passes(network: MultiExitNetwork) -> Iterator[None]:
    """Let one `forward_all` per batch leave the BatchNorm statistics that D separate passes would leave.

    The released warm-up passes every batch through depth D, D-1, ..., 1. Block j is then passed k = D - j + 1 times
    and the stem D times with the same batch, which moves a running statistic by 1 - (1 - momentum)^k at once. (The
    counters `num_batches_tracked`, which nothing reads, count every batch once.)
    """
    depth = network.max_depth
    passes = [(network.stem, depth)] + [(block, depth - j) for j, block in enumerate(network.blocks)]
    norms = [(m, m.momentum, k) for part, k in passes for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        for norm, momentum, k in norms:
            norm.momentum = 1 - (1 - momentum) ** k
        yield
    finally:
        for norm, momentum, _ in norms:
            norm.momentum = momentum
