"""The networks: exits, truncation, and agreement with torchvision's."""

import pytest
import torch
import torchvision.models
from torch import nn

from odnlib.models import ARCHITECTURES, MultiExitNetwork


def network(architecture: str, width: int = 4) -> MultiExitNetwork:
    """A small network whose BatchNorm statistics are not the initial ones."""
    torch.manual_seed(0)
    made = MultiExitNetwork(architecture, channels=3, classes=5, width=width)
    made.train()
    for _ in range(2):
        made.forward_all(torch.randn(4, 3, 16, 16))
    return made.eval()


def test_depths_of_the_paper():
    assert {name: a.depth for name, a in ARCHITECTURES.items()} == {"resnet18": 8, "resnet34": 16, "resnet50": 16}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_truncated_equals_exit_at_every_depth(architecture, float64):
    whole, images = network(architecture), torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        exits = whole.forward_all(images)
        for depth in range(1, whole.max_depth + 1):
            cut = whole.truncate(depth).eval()
            torch.testing.assert_close(cut(images), whole(images, depth), rtol=0, atol=1e-10)
            torch.testing.assert_close(cut(images), exits[depth - 1], rtol=0, atol=1e-10)
            assert sum(p.numel() for p in cut.parameters()) == sum(p.numel() for p in whole.parameters_at(depth))


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
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_compute_what_torchvisions_do(architecture, float64):
    """The four stages of torchvision's network, given the same weights, make the same features."""
    ours = network(architecture, width=64)
    theirs = getattr(torchvision.models, architecture)(weights=None).eval()
    blocks = [block for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4) for block in stage]
    assert len(blocks) == ours.max_depth
    for our_block, their_block in zip(ours.blocks, blocks, strict=True):
        their_block.load_state_dict(in_torchvisions_names(our_block, their_block))
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        x = y = ours.stem(images)
        for our_block, their_block in zip(ours.blocks, blocks, strict=True):
            x, y = our_block(x), their_block(y)
            torch.testing.assert_close(x, y, rtol=0, atol=1e-10)


def in_torchvisions_names(ours: nn.Module, theirs: nn.Module) -> dict[str, torch.Tensor]:
    """Both list body first (convolution, norm, ...), shortcut last, so the n-th entry of one is the n-th of the other.

    A block of ours without shortcut has nothing there, like torchvision's.
    """
    names, tensors = list(theirs.state_dict()), list(ours.state_dict().values())
    assert [t.shape for t in theirs.state_dict().values()] == [t.shape for t in tensors]
    return dict(zip(names, tensors, strict=True))
