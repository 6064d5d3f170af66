"""Networks with one exit per block (Section III-A), and the shallower networks cut out of them.

`architectures` describes them as data; here a network is a flat list of blocks and lists of each exit's pool and head.
The depth to run is always an argument, never state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from odnlib.architectures import ARCHITECTURES, scale_channels


class MultiExitNetwork(nn.Module):
    """A network with an exit after every block (Section III-A): features are pooled, then a linear head gives logits.

    Args:
        stem: images (N, C, H, W) -> features. blocks: features -> features, in order.
        exits: for each block (pool, head): features -> (N, F), and (N, F) -> logits (N, classes).
    """

    def __init__(self, stem: nn.Module, blocks: Iterable[nn.Module], exits: Iterable[tuple[nn.Module, nn.Module]]):
        super().__init__()
        pools, heads = zip(*exits, strict=True)
        self.stem, self.blocks = stem, nn.ModuleList(blocks)
        self.pools, self.heads = nn.ModuleList(pools), nn.ModuleList(heads)

    @property
    def max_depth(self) -> int:
        """The number of blocks, which is the deepest exit's depth."""
        return len(self.blocks)

    def _check(self, depth: int) -> None:
        if not 1 <= depth <= self.max_depth:
            raise ValueError(f"depth {depth} does not exist: this network has depths 1 to {self.max_depth}")

    def forward(self, x: Tensor, depth: int) -> Tensor:
        """Return the logits (N, classes) of the exit after `depth` blocks for images (N, C, H, W); no others run."""
        self._check(depth)
        x = self.stem(x)
        for block in self.blocks[:depth]:
            x = block(x)
        return self.heads[depth - 1](self.pools[depth - 1](x))

    def forward_all(self, x: Tensor) -> Tensor:
        """Return the logits (D, N, classes) of all D exits for images (N, C, H, W), from one pass of the blocks."""
        x = self.stem(x)
        logits = []
        for block, pool, head in zip(self.blocks, self.pools, self.heads, strict=True):
            x = block(x)
            logits.append(head(pool(x)))
        return torch.stack(logits)

    def truncate(self, depth: int) -> TruncatedNetwork:
        """Return a copy of the stem, the first `depth` blocks and their exit: the network to deploy (Section III-D)."""
        self._check(depth)
        pool, head = self.pools[depth - 1], self.heads[depth - 1]
        return copy.deepcopy(TruncatedNetwork(self.stem, self.blocks[:depth], pool, head))

    def parameters_at(self, depth: int) -> list[nn.Parameter]:
        """Return the parameters of the stem, the first `depth` blocks and their exit, as a list for an optimiser."""
        self._check(depth)
        active = [self.stem, *self.blocks[:depth], self.pools[depth - 1], self.heads[depth - 1]]
        return [parameter for module in active for parameter in module.parameters()]


class TruncatedNetwork(nn.Module):
    """A network with a single exit: stem, some first blocks, pool, head; (N, C, H, W) -> logits (N, classes)."""

    def __init__(self, stem: nn.Module, blocks: Iterable[nn.Module], pool: nn.Module, head: nn.Module):
        super().__init__()
        self.stem, self.blocks, self.pool, self.head = stem, nn.Sequential(*blocks), pool, head

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) for images (N, C, H, W)."""
        return self.head(self.pool(self.blocks(self.stem(x))))


def build(architecture: str, channels: int, classes: int, width: int = 64) -> MultiExitNetwork:
    """Return a new network of `ARCHITECTURES` with initial weights drawn from torch's global random state.

    Args:
        architecture: a key of `ARCHITECTURES`. channels: of the images. classes: logits of every exit.
        width: channels of the first stage; 64 as published, 16 for a quarter of all channels.
    """
    table = ARCHITECTURES[architecture]
    stem, blocks, exits = table.build_stem(channels, width), [], []
    features = scale_channels(table.stem_channels, width)
    for group in table.blocks:
        for position in range(group.count):
            channels_out = scale_channels(group.channels, width)
            blocks.append(group.block(features, channels_out, 1 if position else group.stride))
            features = channels_out
            exits.append(table.exit(features, classes, width, len(blocks) == table.depth))
    return MultiExitNetwork(stem, blocks, exits)


@contextmanager
def batch_norm_as_in_separate_passes(network: MultiExitNetwork) -> Iterator[None]:
    """Within a `with` block, let one pass through all D exits move BatchNorm's statistics as D passes would.

    The released warm-up passes every batch through depth D, D-1, ..., 1. Block j is thus passed k = D - j + 1 times and
    the stem D times with the same batch, which moves a running statistic by 1 - (1 - momentum)^k in one step. (The
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
