"""Architectures that the paper names without trying them (Section I): ResNet-101, Wide ResNets and MobileNets.

`register_architectures` adds them to odnlib's registry; call it before asking for one. MobileNets are made for images
of 224 pixels; here, stem and first reduction keep the size of small images.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from odnlib import architectures
from odnlib.architectures import Architecture, BlockGroup, GlobalAveragePool, PoolAndHead, convolution_and_batch_norm

Activation = Callable[[], nn.Module]


class PreActivationBlock(nn.Module):
    """The Wide ResNet block: BatchNorm and ReLU before both 3x3 convolutions (Zagoruyko and Komodakis, 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.active = nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU())
        first = convolution_and_batch_norm(channels_in, channels_out, 3, stride)
        second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.body = nn.Sequential(*first, nn.ReLU(), second)
        same_shape = stride == 1 and channels_in == channels_out
        *project, _ = architectures.projection_shortcut(channels_in, channels_out, stride)  # without BatchNorm
        self.shortcut = None if same_shape else nn.Sequential(*project)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, channels_out, H / stride, W / stride) for features (N, channels_in, H, W)."""
        active = self.active(x)
        return self.body(active) + (x if self.shortcut is None else self.shortcut(active))


def separable_block(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """Return MobileNetV1's block: depthwise 3x3, then 1x1 convolution, with BatchNorm, ReLU (Howard et al., 2017)."""
    depthwise = convolution_and_batch_norm(channels_in, channels_in, 3, stride, groups=channels_in)
    return nn.Sequential(*depthwise, nn.ReLU(), *convolution_and_batch_norm(channels_in, channels_out, 1), nn.ReLU())


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a factor 0..1 computed from the means of all channels (Hu et al., 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)  # a quarter, as a multiple of 8, at most a tenth less
        inner += 8 * (inner < 0.9 * (channels // 4))
        self.pool = GlobalAveragePool()
        self.gate = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C, H, W), scaled channel by channel, for features of the same shape."""
        return x * self.gate(self.pool(x))[:, :, None, None]


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., 2018): convolutions 1x1 to `expansion` times the channels, depthwise, 1x1, a
    shortcut if the shape stays; `squeeze`: with a `SqueezeExcitation` (V3; Howard et al., 2019).
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, expansion: float = 6, kernel: int = 3,
        activation: Activation = nn.ReLU6, squeeze: bool = False,
    ):  # fmt: skip
        super().__init__()
        inner = max(architectures.MINIMUM_CHANNELS, round(channels_in * expansion))
        widen = [*convolution_and_batch_norm(channels_in, inner, 1), activation()] if inner != channels_in else []
        convolve = [*convolution_and_batch_norm(inner, inner, kernel, stride, groups=inner), activation()]
        excite = [SqueezeExcitation(inner)] if squeeze else []
        self.body = nn.Sequential(*widen, *convolve, *excite, *convolution_and_batch_norm(inner, channels_out, 1))
        self.same_shape = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, channels_out, H / stride, W / stride) for features (N, channels_in, H, W)."""
        return x + self.body(x) if self.same_shape else self.body(x)


def pre_activation_exit(features: int, classes: int, width: int, last: bool) -> PoolAndHead:
    """Return (pool, head): the BatchNorm and ReLU that the last block lacks, average pooling; a linear layer."""
    return nn.Sequential(nn.BatchNorm2d(features), nn.ReLU(), GlobalAveragePool()), nn.Linear(features, classes)


def mobilenet_exit(
    features: int, classes: int, width: int, last: bool, widened: int, activation: Activation, hidden: int = 0
) -> PoolAndHead:
    """Return (pool, head) as published for the last exit of a MobileNet, a `linear_exit` for all others: the last pools
    after a 1x1 convolution to `widened` channels; its head has a layer of `hidden` units unless 0.
    """
    if not last:
        return architectures.linear_exit(features, classes, width, last)
    inner = architectures.scale_channels(widened, width)
    pool = nn.Sequential(*convolution_and_batch_norm(features, inner, 1), activation(), GlobalAveragePool())
    if not hidden:
        return pool, nn.Linear(inner, classes)
    between = architectures.scale_channels(hidden, width)
    return pool, nn.Sequential(nn.Linear(inner, between), activation(), nn.Linear(between, classes))


def wide_resnet(layers: int, factor: int) -> Architecture:
    """Return WRN-layers-factor: three stages of 16, 32, 64 x `factor` channels (Zagoruyko and Komodakis, 2016)."""
    count = (layers - 4) // 6  # two convolutions per block; stem and shortcuts are the other four layers
    stages = [BlockGroup(PreActivationBlock, factor * 16 * 2**s, count, 2 if s else 1) for s in range(3)]
    return Architecture(16, tuple(stages), None, pre_activation_exit)


def mobilenet(stem: int, table: tuple, activation: Activation, widened: int, hidden: int = 0) -> Architecture:
    """Return the architecture of a MobileNetV2 or V3: channels of its stem, a `table` of `InvertedResidual` blocks (as
    below), and activation, widened channels and hidden units of its `mobilenet_exit`.
    """
    blocks = []
    for channels, count, stride, *settings in table:
        named = dict(zip(("expansion", "kernel", "activation", "squeeze"), settings, strict=False))
        blocks.append(BlockGroup(partial(InvertedResidual, **named), channels, count, stride))
    last = partial(mobilenet_exit, widened=widened, activation=activation, hidden=hidden)
    return Architecture(stem, tuple(blocks), activation, last)


RELU, SWISH = nn.ReLU, nn.Hardswish
MOBILENET_V1_BLOCKS = ((64, 1, 1), (128, 2, 1), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, blocks, stride
MOBILENET_V2_BLOCKS = (  # channels, blocks, stride, expansion
    (16, 1, 1, 1), (24, 2, 1, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6),
)  # fmt: skip
MOBILENET_V3_LARGE_BLOCKS = (  # channels, blocks, stride, expansion, kernel, activation, squeeze
    (16, 1, 1, 1, 3, RELU), (24, 1, 1, 4, 3, RELU), (24, 1, 1, 3, 3, RELU), (40, 3, 2, 3, 5, RELU, True),
    (80, 1, 2, 6, 3, SWISH), (80, 1, 1, 2.5, 3, SWISH), (80, 2, 1, 2.3, 3, SWISH), (112, 2, 1, 6, 3, SWISH, True),
    (160, 3, 2, 6, 5, SWISH, True),
)  # fmt: skip
MOBILENET_V3_SMALL_BLOCKS = (
    (16, 1, 1, 1, 3, RELU, True), (24, 1, 2, 4.5, 3, RELU), (24, 1, 1, 88 / 24, 3, RELU),
    (40, 1, 2, 4, 5, SWISH, True), (40, 2, 1, 6, 5, SWISH, True), (48, 2, 1, 3, 5, SWISH, True),
    (96, 3, 2, 6, 5, SWISH, True),
)  # fmt: skip

UNTRIED_ARCHITECTURES = {
    "resnet101": architectures.resnet_architecture(architectures.bottleneck_block, 4, (3, 4, 23, 3)),
    "wrn_40_2": wide_resnet(40, 2),
    "wrn_16_8": wide_resnet(16, 8),
    "wrn_28_10": wide_resnet(28, 10),
    "mobilenet_v1": Architecture(32, tuple(BlockGroup(separable_block, *line) for line in MOBILENET_V1_BLOCKS)),
    "mobilenet_v2": mobilenet(32, MOBILENET_V2_BLOCKS, nn.ReLU6, 1280),
    "mobilenet_v3_large": mobilenet(16, MOBILENET_V3_LARGE_BLOCKS, SWISH, 960, 1280),
    "mobilenet_v3_small": mobilenet(16, MOBILENET_V3_SMALL_BLOCKS, SWISH, 576, 1024),
}


def register_architectures() -> None:
    """Add `UNTRIED_ARCHITECTURES` to odnlib's registry, so that recipes may name them; once more changes nothing."""
    architectures.ARCHITECTURES.update(UNTRIED_ARCHITECTURES)
