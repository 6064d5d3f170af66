"""The networks: exits, truncation, and agreement with torchvision's."""

import pytest
import torch
import torchvision.models
from torch import nn

from odnlib import metrics
from odnlib.architectures import ARCHITECTURES, projection_shortcut
from odnlib.models import MultiExitNetwork, build
from studies import families_networks
from studies.families_networks import UNTRIED_ARCHITECTURES

EVERY = [*ARCHITECTURES, *UNTRIED_ARCHITECTURES]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The study's families, for one test."""
    for name, table in UNTRIED_ARCHITECTURES.items():
        monkeypatch.setitem(ARCHITECTURES, name, table)


def network(architecture: str, width: int = 8) -> MultiExitNetwork:
    """A small network whose BatchNorm statistics are not the initial ones."""
    torch.manual_seed(0)
    small = build(architecture, channels=3, classes=5, width=width).train()
    for _ in range(2):
        small.forward_all(torch.randn(4, 3, 16, 16))
    return small.eval()


def test_depths():
    """Of the paper's networks, and of those that it says the method would work with."""
    depths = {"resnet18": 8, "resnet34": 16, "resnet50": 16, "chain": 5, "resnet101": 33, "wrn_40_2": 18, "wrn_16_8": 6}
    depths |= {"wrn_28_10": 12, "mobilenet_v1": 13, "mobilenet_v2": 17, "mobilenet_v3_large": 15}
    depths |= {"mobilenet_v3_small": 11}
    assert {name: ARCHITECTURES[name].depth for name in EVERY} == depths


def test_a_study_adds_its_families_once_or_twice(monkeypatch):
    registry = {"resnet18": ARCHITECTURES["resnet18"]}
    monkeypatch.setattr(families_networks.architectures, "ARCHITECTURES", registry)
    for _ in range(2):
        families_networks.register_architectures()
        assert list(registry) == ["resnet18", *UNTRIED_ARCHITECTURES]


def test_a_projection_of_few_channels_computes_the_same():
    """The detour around oneDNN's fault: the stride before the convolution."""
    torch.manual_seed(0)
    detour, images = nn.Sequential(*projection_shortcut(8, 16, 2)), torch.randn(2, 8, 7, 7)
    plain = nn.Conv2d(8, 16, 1, stride=2, bias=False)
    plain.load_state_dict(detour[1].state_dict())
    torch.testing.assert_close(detour[:2](images), plain(images))


STEMS = 64 * 3 * (7 * 7 - 3 * 3)  # what torchvision's 7x7 stem has more than ours of 3x3
PUBLISHED = {  # parameters as counted, as published in millions, and for how many classes
    "wrn_40_2": (2_243_546, 2.2, 10),  # Zagoruyko and Komodakis (2016), Table 4
    "wrn_16_8": (10_961_370, 11.0, 10),
    "wrn_28_10": (36_479_194, 36.5, 10),
    "mobilenet_v1": (4_231_976, 4.2, 1000),  # Howard et al. (2017), Table 8
}
TORCHVISIONS = [name for name in EVERY if hasattr(torchvision.models, name)]


def of_deepest_exit(network):
    return sum(parameter.numel() for parameter in network.parameters_at(network.max_depth))


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_as_many_parameters_as_published(architecture):
    counted, millions, classes = PUBLISHED[architecture]
    assert of_deepest_exit(build(architecture, 3, classes)) == counted
    assert round(counted / 1e6, 1) == millions


@pytest.mark.parametrize("architecture", TORCHVISIONS)
def test_as_many_parameters_as_torchvisions(architecture):
    theirs = getattr(torchvision.models, architecture)(weights=None)
    more = STEMS if architecture.startswith("resnet") else 0
    assert of_deepest_exit(build(architecture, 3, 1000)) == metrics.count_parameters(theirs) - more


@pytest.mark.slow
def test_every_width_scales_every_channel():
    for architecture in EVERY:
        counts = [metrics.count_parameters(build(architecture, 3, 10, width)) for width in (8, 16, 32, 64)]
        assert counts == sorted(set(counts))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EVERY)
def test_truncated_equals_exit_at_every_depth(architecture, float64):
    whole, images = network(architecture), torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        exits = whole.forward_all(images)
        for depth in range(1, whole.max_depth + 1):
            cut = whole.truncate(depth).eval()
            torch.testing.assert_close(cut(images), whole(images, depth), rtol=0, atol=1e-10)
            torch.testing.assert_close(cut(images), exits[depth - 1], rtol=0, atol=1e-10)
            assert metrics.count_parameters(cut) == sum(p.numel() for p in whole.parameters_at(depth))


def test_truncated_is_independent():
    whole, images = network("resnet18"), torch.randn(2, 3, 16, 16)
    cut = whole.truncate(2).eval()
    before = cut(images)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(cut(images), before, rtol=0, atol=0)


@pytest.mark.parametrize("depth", [0, 9, -1])
def test_depth_that_does_not_exist(depth):
    whole = network("resnet18")
    for call in (whole.truncate, lambda d: whole(torch.zeros(1, 3, 16, 16), d)):
        with pytest.raises(ValueError, match=f"depth {depth} does not exist: this network has depths 1 to 8"):
            call(depth)


def test_beyond_depth_there_is_no_gradient():
    whole = network("resnet18").train()
    whole(torch.randn(2, 3, 16, 16), 3).sum().backward()
    active = {id(parameter) for parameter in whole.parameters_at(3)}
    for parameter in whole.parameters():
        assert (parameter.grad is not None) == (id(parameter) in active)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", TORCHVISIONS)
def test_blocks_compute_what_torchvisions_do(architecture, float64):
    """The blocks of torchvision's network, given the same weights and strides, make the same features."""
    ours = network(architecture, width=64)
    theirs = getattr(torchvision.models, architecture)(weights=None).eval()
    if architecture.startswith("resnet"):
        blocks = [block for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4) for block in stage]
    else:
        blocks = list(theirs.features[1:-1])
    with torch.inference_mode():
        x = y = ours.stem(torch.randn(2, 3, 16, 16))
        for our_block, their_block in zip(ours.blocks, blocks, strict=True):
            for kind, name in ((nn.Conv2d, "stride"), (nn.BatchNorm2d, "eps")):  # MobileNets keep small images' size
                layers = [[m for m in block.modules() if isinstance(m, kind)] for block in (our_block, their_block)]
                for our_layer, their_layer in zip(*layers, strict=False):
                    setattr(their_layer, name, getattr(our_layer, name))
            if hasattr(their_block, "use_res_connect"):  # ... which lets a block add its input that could not before
                their_block.use_res_connect = our_block.same_shape
            their_block.load_state_dict(in_torchvisions_names(our_block, their_block))
            x, y = our_block(x), their_block(y)
            torch.testing.assert_close(x, y, rtol=0, atol=1e-10)


def in_torchvisions_names(ours: nn.Module, theirs: nn.Module) -> dict[str, torch.Tensor]:
    """Both list body first (convolution, norm, ...), shortcut last, so the n-th entry of one is the n-th of the other.

    They differ in shape only where torchvision has a 1x1 convolution for a linear layer.
    """
    entries = zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True)
    return {name: tensor.reshape(their_tensor.shape) for (name, their_tensor), tensor in entries}
