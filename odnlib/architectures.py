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

MINIMUM_CHANNELS = 8  # of every layer, at any width


def scale_channels(channels: int, width: int) -> int:
    """Return a published number of channels at another width: 64 keeps it, 16 gives a quarter; at least 8."""
    return max(MINIMUM_CHANNELS, round(channels * width / 64))


def convolution_and_batch_norm(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return [Conv2d without bias, BatchNorm2d]; `kernel` is its side in pixels, and stride 1 keeps the image size."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


def projection_shortcut(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """Return the layers of a shortcut whose block changes channels or image size: a 1x1 convolution, its BatchNorm.

    With fewer input channels than a vector register holds numbers (16 with AVX-512), the backward pass of oneDNN's
    strided 1x1 convolution writes beyond its memory (oneDNN issue 6035). Such a convolution is replaced by subsampling
    with the stride, followed by a convolution of stride 1, which computes the same.
    """
    if stride > 1 and channels_in < 16:
        every_other = nn.AvgPool2d(1, stride)  # the mean of one pixel is that pixel
        return [every_other, *convolution_and_batch_norm(channels_in, channels_out, 1)]
    return convolution_and_batch_norm(channels_in, channels_out, 1, stride)


class ResidualBlock(nn.Module):
    """Computes relu(body(x) + shortcut(x)) of features (N, C, H, W), as in ResNets (He et al., 2016).

    Args:
        channels: into the body, between its convolutions, and out. kernels: sides of its convolutions, in pixels.
        stride: of the first 3x3 convolution. The shortcut is a projection where the body changes the shape.
    """

    def __init__(self, channels: tuple[int, ...], kernels: tuple[int, ...], stride: int):
        super().__init__()
        body, strides = [], [stride if number == kernels.index(3) else 1 for number in range(len(kernels))]
        for step in zip(channels, channels[1:], kernels, strides, strict=False):
            body += [*convolution_and_batch_norm(*step), nn.ReLU()]
        self.body = nn.Sequential(*body[:-1])  # the last ReLU is that of the sum
        same_shape = stride == 1 and channels[0] == channels[-1]
        projection = [] if same_shape else projection_shortcut(channels[0], channels[-1], stride)
        self.shortcut = nn.Sequential(*projection)  # without a module the identity

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, channels[-1], H / stride, W / stride) for features (N, channels[0], H, W)."""
        return torch.relu(self.body(x) + self.shortcut(x))


def basic_block(channels_in: int, channels_out: int, stride: int) -> ResidualBlock:
    """Return a residual block of ResNet-18 and 34: two 3x3 convolutions with BatchNorm; the first has the stride."""
    return ResidualBlock((channels_in, channels_out, channels_out), (3, 3), stride)


def bottleneck_block(channels_in: int, channels_out: int, stride: int) -> ResidualBlock:
    """Return a residual block of ResNet-50: 1x1, 3x3 and 1x1 convolutions, a quarter of `channels_out` inside."""
    inner = channels_out // 4
    return ResidualBlock((channels_in, inner, inner, channels_out), (1, 3, 1), stride)


class GlobalAveragePool(nn.Module):
    """Averages features over their pixels: (N, C, H, W) -> (N, C). A module, so that `metrics.count_macs` sees it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (N, C) of features (N, C, H, W)."""
        return x.mean((2, 3))


# An exit of a network: pool, features (N, C, H, W) -> (N, F), and head, (N, F) -> logits (N, classes).
PoolAndHead = tuple[nn.Module, nn.Module]


def linear_exit(features: int, classes: int, width: int, last: bool) -> PoolAndHead:
    """Return an exit as the paper has it, (global average pool, linear layer from `features` to `classes` logits).

    `width` of the network and whether the exit is its last are not used here; exits of other families use them.
    """
    return GlobalAveragePool(), nn.Linear(features, classes)


class BlockGroup(NamedTuple):
    """Describes consecutive blocks of a network with equal output channels; only the first has a stride above 1."""

    block: Callable[[int, int, int], nn.Module]  # (channels in, channels out, stride) -> block
    channels: int  # out, at width 64
    count: int = 1  # of blocks
    stride: int = 1  # of the first block


@dataclass(frozen=True)
class Architecture:
    """Describes a network as data: its stem, its groups of blocks and its exits. `models.build` makes the network."""

    stem_channels: int  # at width 64
    blocks: tuple[BlockGroup, ...]
    activation: Callable[[], nn.Module] | None = nn.ReLU  # of the stem; None: no BatchNorm there either
    exit: Callable[[int, int, int, bool], PoolAndHead] = linear_exit  # (features, classes, width, is it the last)

    @property
    def depth(self) -> int:
        """The number of blocks, which is the largest depth (D_max of Eq. 1)."""
        return sum(group.count for group in self.blocks)

    def build_stem(self, channels_in: int, width: int) -> nn.Sequential:
        """Return a new first part of the network, a 3x3 convolution: images (N, C, H, W) -> features of their size."""
        convolution, norm = convolution_and_batch_norm(channels_in, scale_channels(self.stem_channels, width), 3)
        return nn.Sequential(convolution, norm, self.activation()) if self.activation else nn.Sequential(convolution)


def resnet_architecture(block: Callable[..., nn.Module], widening: int, counts: tuple[int, ...]) -> Architecture:
    """Return the `Architecture` of a ResNet (He et al., 2016): stages of `counts` blocks with 64, 128, ... channels,
    times `widening`; every stage but the first halves the image.
    """
    stages = [BlockGroup(block, widening * 64 * 2**s, count, 2 if s else 1) for s, count in enumerate(counts)]
    return Architecture(64, tuple(stages))


def chain_architecture(count: int) -> Architecture:
    """Return the `Architecture` (ours) of `count` basic blocks that each halve the image and double the channels."""
    return Architecture(64, tuple(BlockGroup(basic_block, 64 * 2**s, stride=2) for s in range(count)))


ARCHITECTURES = {  # by the name that a recipe gives
    "resnet18": resnet_architecture(basic_block, 1, (2, 2, 2, 2)),
    "resnet34": resnet_architecture(basic_block, 1, (3, 4, 6, 3)),
    "resnet50": resnet_architecture(bottleneck_block, 4, (3, 4, 6, 3)),
    "chain": chain_architecture(5),
}
