"""Networks as tables: stem, blocks, exits. A new one is a new entry of `ARCHITECTURES` (README: "Another network").

Channels stand as in the published networks; `width` scales them all, 64 being the whole, so that the first stage of a
ResNet has `width` of them. Images are small here, hence the stride-1 stem of CIFAR networks, and the MobileNets, made
for 224 pixels, keep the size in their stem and at their first reduction too. No network has dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]
FEWEST_CHANNELS = 8  # however narrow


def scaled(channels: int, width: int) -> int:
    """So many of a published network's channels has the one of this width."""
    return max(FEWEST_CHANNELS, round(channels * width / 64))


def convolution_norm(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A bias-free convolution that keeps the size at stride 1, and its BatchNorm."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


class EveryOther(nn.Module):
    """(N, C, H, W) -> every `stride`-th row and column of it."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]


def projection(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """The 1x1 convolution of a shortcut, and its BatchNorm.

    Of fewer channels than a vector register has numbers - 16 with AVX-512 - oneDNN writes past its memory in the
    backward pass of a strided one (its issue 6035): there the stride comes before the convolution, which is the same.
    """
    if stride > 1 and channels_in < 16:
        return [EveryOther(stride), *convolution_norm(channels_in, channels_out, 1)]
    return convolution_norm(channels_in, channels_out, 1, stride)


class ResidualBlock(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 convolution where the shape changes (He et al., 2016)."""

    def __init__(self, body: list[nn.Module], channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(*body)
        same_shape = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same_shape else nn.Sequential(*projection(channels_in, channels_out, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def basic_block(channels_in: int, channels_out: int, stride: int) -> ResidualBlock:
    """Two 3x3 convolutions."""
    body = [
        *convolution_norm(channels_in, channels_out, 3, stride),
        nn.ReLU(),
        *convolution_norm(channels_out, channels_out, 3),
    ]
    return ResidualBlock(body, channels_in, channels_out, stride)


def bottleneck_block(channels_in: int, channels_out: int, stride: int) -> ResidualBlock:
    """1x1, 3x3 and 1x1 convolutions; the last one widens fourfold. The stride sits on the 3x3 one."""
    inner = channels_out // 4
    body = [
        *convolution_norm(channels_in, inner, 1),
        nn.ReLU(),
        *convolution_norm(inner, inner, 3, stride),
        nn.ReLU(),
        *convolution_norm(inner, channels_out, 1),
    ]
    return ResidualBlock(body, channels_in, channels_out, stride)


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, none after the sum (Zagoruyko and Komodakis, 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.active = nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU())
        convolution, norm = convolution_norm(channels_in, channels_out, 3, stride)
        second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.body = nn.Sequential(convolution, norm, nn.ReLU(), second)
        same_shape = stride == 1 and channels_in == channels_out
        *project, _ = projection(channels_in, channels_out, stride)  # its BatchNorm comes first
        self.shortcut = None if same_shape else nn.Sequential(*project)

    def forward(self, x: Tensor) -> Tensor:
        active = self.active(x)
        return self.body(active) + (x if self.shortcut is None else self.shortcut(active))


def separable_block(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """A 3x3 convolution of every channel by itself, then a 1x1 one across them (MobileNet; Howard et al., 2017)."""
    return nn.Sequential(
        *convolution_norm(channels_in, channels_in, 3, stride, groups=channels_in),
        nn.ReLU(),
        *convolution_norm(channels_in, channels_out, 1),
        nn.ReLU(),
    )


class SqueezeExcitation(nn.Module):
    """Every channel times a factor 0..1 that a small network computes from all channels' means (Hu et al., 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)  # a quarter, in eights, at most a tenth less
        inner += 8 * (inner < 0.9 * (channels // 4))
        self.pool = GlobalAveragePool()
        self.gate = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))[:, :, None, None]


class InvertedResidual(nn.Module):
    """Widen, convolve every channel by itself, narrow; plus x if the shape stays (MobileNetV2; Sandler et al., 2018).

    Args:
        expansion: channels inside / channels in. squeeze: with a `SqueezeExcitation` (V3; Howard et al., 2019).
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, expansion: float = 6, kernel: int = 3,
        activation: Activation = nn.ReLU6, squeeze: bool = False,
    ):  # fmt: skip
        super().__init__()
        inner = max(FEWEST_CHANNELS, round(channels_in * expansion))
        widen = [*convolution_norm(channels_in, inner, 1), activation()] if inner != channels_in else []
        convolve = [*convolution_norm(inner, inner, kernel, stride, groups=inner), activation()]
        excite = [SqueezeExcitation(inner)] if squeeze else []
        self.body = nn.Sequential(*widen, *convolve, *excite, *convolution_norm(inner, channels_out, 1))
        self.same_shape = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same_shape else self.body(x)


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) -> (N, C). A module, so that `metrics` can see its input; thop counts it as nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


Exit = tuple[nn.Module, nn.Module]  # (N, C, H, W) -> (N, features), and that -> logits (N, classes)


def linear_exit(features: int, classes: int, width: int, last: bool) -> Exit:
    """The paper's output layer."""
    return GlobalAveragePool(), nn.Linear(features, classes)


def pre_activation_exit(features: int, classes: int, width: int, last: bool) -> Exit:
    """With the BatchNorm and the ReLU that pre-activation blocks leave to whatever follows them."""
    return nn.Sequential(nn.BatchNorm2d(features), nn.ReLU(), GlobalAveragePool()), nn.Linear(features, classes)


def mobile_exit(
    features: int, classes: int, width: int, last: bool, widened: int, activation: Activation, hidden: int = 0
) -> Exit:
    """The last exit has the published network's 1x1 convolution to `widened` channels, and its `hidden` layer if any;
    the earlier ones are the paper's.
    """
    if not last:
        return linear_exit(features, classes, width, last)
    inner = scaled(widened, width)
    pool = nn.Sequential(*convolution_norm(features, inner, 1), activation(), GlobalAveragePool())
    if not hidden:
        return pool, nn.Linear(inner, classes)
    between = scaled(hidden, width)
    return pool, nn.Sequential(nn.Linear(inner, between), activation(), nn.Linear(between, classes))


class Blocks(NamedTuple):
    """Some blocks in a row; the first of them has the stride."""

    block: Callable[[int, int, int], nn.Module]  # (channels in, channels out, stride) -> block
    channels: int  # out, at full width
    count: int = 1
    stride: int = 1


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one network from another."""

    stem_channels: int
    blocks: tuple[Blocks, ...]
    activation: Activation | None = nn.ReLU  # of the stem; none: no BatchNorm there either
    exit: Callable[[int, int, int, bool], Exit] = linear_exit  # (features, classes, width, whether the last)

    @property
    def depth(self) -> int:
        """The largest depth D_max (Eq. 1): all blocks."""
        return sum(group.count for group in self.blocks)

    def stem(self, channels_in: int, width: int) -> nn.Sequential:
        """Image channels -> stem channels, size kept."""
        convolution, norm = convolution_norm(channels_in, scaled(self.stem_channels, width), 3)
        return nn.Sequential(convolution, norm, self.activation()) if self.activation else nn.Sequential(convolution)


def resnet(block: Callable[[int, int, int], nn.Module], widening: int, counts: tuple[int, ...]) -> Architecture:
    """Four stages of 64, 128, ... channels times `widening`, all but the first begun at stride 2 (He et al., 2016)."""
    stages = [Blocks(block, widening * 64 * 2**s, count, 2 if s else 1) for s, count in enumerate(counts)]
    return Architecture(64, tuple(stages))


def wide_resnet(layers: int, factor: int) -> Architecture:
    """WRN-layers-factor: three stages of 16, 32 and 64 channels times `factor` (Zagoruyko and Komodakis, 2016)."""
    count = (layers - 4) // 6  # two convolutions per block; stem and shortcuts are the other four layers
    stages = [Blocks(PreActivationBlock, factor * 16 * 2**s, count, 2 if s else 1) for s in range(3)]
    return Architecture(16, tuple(stages), None, pre_activation_exit)


def inverted(channels: int, stride: int, expansion: float, kernel: int, activation: Activation, squeeze: int) -> Blocks:
    """One line of MobileNetV3's tables."""
    settings = {"expansion": expansion, "kernel": kernel, "activation": activation, "squeeze": bool(squeeze)}
    return Blocks(partial(InvertedResidual, **settings), channels, 1, stride)


V1 = ((64, 1, 1), (128, 2, 1), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, blocks, stride
V2 = ((16, 1, 1, 1), (24, 2, 1, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6))
RE, HS = nn.ReLU, nn.Hardswish
V3_LARGE = (  # channels, stride, expansion, kernel, activation, squeeze
    (16, 1, 1, 3, RE, 0), (24, 1, 4, 3, RE, 0), (24, 1, 3, 3, RE, 0), (40, 2, 3, 5, RE, 1), (40, 1, 3, 5, RE, 1),
    (40, 1, 3, 5, RE, 1), (80, 2, 6, 3, HS, 0), (80, 1, 2.5, 3, HS, 0), (80, 1, 2.3, 3, HS, 0), (80, 1, 2.3, 3, HS, 0),
    (112, 1, 6, 3, HS, 1), (112, 1, 6, 3, HS, 1), (160, 2, 6, 5, HS, 1), (160, 1, 6, 5, HS, 1), (160, 1, 6, 5, HS, 1),
)  # fmt: skip
V3_SMALL = (
    (16, 1, 1, 3, RE, 1), (24, 2, 4.5, 3, RE, 0), (24, 1, 88 / 24, 3, RE, 0), (40, 2, 4, 5, HS, 1),
    (40, 1, 6, 5, HS, 1), (40, 1, 6, 5, HS, 1), (48, 1, 3, 5, HS, 1), (48, 1, 3, 5, HS, 1),
    (96, 2, 6, 5, HS, 1), (96, 1, 6, 5, HS, 1), (96, 1, 6, 5, HS, 1),
)  # fmt: skip

ARCHITECTURES = {
    "resnet18": resnet(basic_block, 1, (2, 2, 2, 2)),
    "resnet34": resnet(basic_block, 1, (3, 4, 6, 3)),
    "resnet50": resnet(bottleneck_block, 4, (3, 4, 6, 3)),
    "resnet101": resnet(bottleneck_block, 4, (3, 4, 23, 3)),
    "wrn_40_2": wide_resnet(40, 2),
    "wrn_16_8": wide_resnet(16, 8),
    "wrn_28_10": wide_resnet(28, 10),
    "mobilenet_v1": Architecture(32, tuple(Blocks(separable_block, *line) for line in V1)),
    "mobilenet_v2": Architecture(
        32,
        tuple(Blocks(partial(InvertedResidual, expansion=line[3]), *line[:3]) for line in V2),
        nn.ReLU6,
        partial(mobile_exit, widened=1280, activation=nn.ReLU6),
    ),
    "mobilenet_v3_large": Architecture(
        16,
        tuple(inverted(*line) for line in V3_LARGE),
        HS,
        partial(mobile_exit, widened=960, activation=HS, hidden=1280),
    ),
    "mobilenet_v3_small": Architecture(
        16,
        tuple(inverted(*line) for line in V3_SMALL),
        HS,
        partial(mobile_exit, widened=576, activation=HS, hidden=1024),
    ),
}
