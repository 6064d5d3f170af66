"""ResNets as tables of blocks in one registry, `ARCHITECTURES`.

Channel counts are the published ones at width 64. A width scales all of them; it is the number of channels of a
ResNet's first stage. Since images are small here, the stem is the 3x3 convolution of stride 1 of CIFAR networks. There
is no dropout. To add a family, put its entries into the registry before asking for one, as the study
`families_networks` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

FEWEST_CHANNELS = 8  # at any width


def scaled(channels: int, width: int) -> int:
    """Scale a published number of channels to a width: 64 keeps it, 16 gives a quarter; at least `FEWEST_CHANNELS`."""
    return max(FEWEST_CHANNELS, round(channels * width / 64))


def convolution_norm(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return [a convolution without bias, its BatchNorm]; the padding keeps the image size at stride 1."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


def projection(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """Return the layers that fit a shortcut to a new shape: a 1x1 convolution and its BatchNorm.

    With fewer input channels than a vector register holds numbers (16 with AVX-512), the backward pass of oneDNN's
    strided 1x1 convolution writes beyond its memory (oneDNN issue 6035). Such a convolution is replaced by subsampling
    with the stride, followed by a convolution of stride 1, which computes the same.
    """
    if stride > 1 and channels_in < 16:
        every_other = nn.AvgPool2d(1, stride)  # the mean of one pixel is that pixel
        return [every_other, *convolution_norm(channels_in, channels_out, 1)]
    return convolution_norm(channels_in, channels_out, 1, stride)


class ResidualBlock(nn.Module):
    """Computes relu(body(x) + shortcut(x)); the shortcut is a projection if the shape changes (He et al., 2016)."""

    def __init__(self, body: list[nn.Module], channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(*body)
        same_shape = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same_shape else nn.Sequential(*projection(channels_in, channels_out, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def basic_block(channels_in: int, channels_out: int, stride: int) -> ResidualBlock:
    """Return the residual block of ResNet-18/34: two 3x3 convolutions with BatchNorm, and the shortcut."""
    body = [
        *convolution_norm(channels_in, channels_out, 3, stride),
        nn.ReLU(),
        *convolution_norm(channels_out, channels_out, 3),
    ]
    return ResidualBlock(body, channels_in, channels_out, stride)


def bottleneck_block(channels_in: int, channels_out: int, stride: int) -> ResidualBlock:
    """Return the residual block of ResNet-50: 1x1, 3x3 and 1x1 convolutions, a quarter of the channels inside."""
    inner = channels_out // 4
    body = [
        *convolution_norm(channels_in, inner, 1),
        nn.ReLU(),
        *convolution_norm(inner, inner, 3, stride),
        nn.ReLU(),
        *convolution_norm(inner, channels_out, 1),
    ]
    return ResidualBlock(body, channels_in, channels_out, stride)


class GlobalAveragePool(nn.Module):
    """Averages over the pixels: (N, C, H, W) -> (N, C). It is a module so that hooks in `metrics` see its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


Exit = tuple[nn.Module, nn.Module]  # pool: (N, C, H, W) -> (N, F), and head: (N, F) -> logits (N, classes)


def linear_exit(features: int, classes: int, width: int, last: bool) -> Exit:
    """Return the paper's output layer as (pool, head): global average pooling, then one linear layer."""
    return GlobalAveragePool(), nn.Linear(features, classes)


class Blocks(NamedTuple):
    """Describes a group of blocks with equal output channels: the first has the stride `stride`, the others 1."""

    block: Callable[[int, int, int], nn.Module]  # (channels in, channels out, stride) -> block
    channels: int  # out, at width 64
    count: int = 1
    stride: int = 1


@dataclass(frozen=True)
class Architecture:
    """Describes a network (stem, groups of blocks, exits), so that `models.build` can make it."""

    stem_channels: int  # at width 64
    blocks: tuple[Blocks, ...]
    activation: Callable[[], nn.Module] | None = nn.ReLU  # of the stem; None: no BatchNorm there either
    exit: Callable[[int, int, int, bool], Exit] = linear_exit  # (features, classes, width, is it the last)

    @property
    def depth(self) -> int:
        """The number of blocks: the largest depth, D_max of Eq. 1."""
        return sum(group.count for group in self.blocks)

    def stem(self, channels_in: int, width: int) -> nn.Sequential:
        """Build the first layers: images -> `stem_channels` (scaled to the width) features of the same size."""
        convolution, norm = convolution_norm(channels_in, scaled(self.stem_channels, width), 3)
        return nn.Sequential(convolution, norm, self.activation()) if self.activation else nn.Sequential(convolution)


def resnet(block: Callable[[int, int, int], nn.Module], widening: int, counts: tuple[int, ...]) -> Architecture:
    """Describe a ResNet of stages with 64, 128, ... channels times `widening` and `counts` blocks (He et al., 2016)."""
    stages = [Blocks(block, widening * 64 * 2**s, count, 2 if s else 1) for s, count in enumerate(counts)]
    return Architecture(64, tuple(stages))


def chain(count: int) -> Architecture:
    """Describe a chain of `count` basic blocks that halves the image, and doubles the channels, at every one (ours)."""
    return Architecture(64, tuple(Blocks(basic_block, 64 * 2**s, stride=2) for s in range(count)))


ARCHITECTURES = {
    "resnet18": resnet(basic_block, 1, (2, 2, 2, 2)),
    "resnet34": resnet(basic_block, 1, (3, 4, 6, 3)),
    "resnet50": resnet(bottleneck_block, 4, (3, 4, 6, 3)),
    "chain": chain(5),
}
