"""The structural columns of Table I, and accuracy."""

import pytest
import torch
from torch import nn

from odnlib import metrics
from odnlib.architectures import GlobalAveragePool
from odnlib.data import DATASETS
from odnlib.models import build
from odnlib.paper import TABLE_1
from tests.conftest import tiny_split

# Row, variant: exact parameters; MACs in millions by the paper's rule. Three MACs figures differ from the printed ones:
# EMNIST's are those of 10 classes, or have a wrong digit, SVHN's full one is that of 28x28x1 images.
STRUCTURE = {
    ("mnist", "full"): (11_172_810, 458.21),
    ("mnist", "odn"): (149_322, 117.36),
    ("emnist", "full"): (11_181_018, 458.22),
    ("emnist", "odn"): (382_170, 162.67),
    ("fashion_mnist", "full"): (21_280_970, 939.91),
    ("fashion_mnist", "odn"): (1_044_938, 337.08),
    ("svhn", "full"): (21_282_122, 1164.53),
    ("svhn", "odn"): (750_666, 365.63),
    ("cifar10", "full"): (23_520_842, 1315.02),
    ("cifar10", "odn"): (6_311_498, 906.19),
}
MISPRINTED_MACS = {("emnist", "full"), ("emnist", "odn"), ("svhn", "full")}


@pytest.mark.parametrize(("row", "variant"), STRUCTURE)
def test_table_1(row, variant):
    printed, dataset = getattr(TABLE_1[row], variant), DATASETS[row]
    cut = build(TABLE_1[row].architecture, dataset.image_shape[0], dataset.classes).truncate(printed.depth)
    figures, (params, macs_m) = metrics.structure(cut, dataset.image_shape), STRUCTURE[row, variant]
    assert (figures["params"], round(figures["macs_m"], 2)) == (params, macs_m)
    assert figures["size_mb"] == pytest.approx(printed.size_mb, rel=0.003)
    assert (macs_m == printed.macs_m) == ((row, variant) not in MISPRINTED_MACS)


@pytest.mark.parametrize("row", TABLE_1)
def test_size_reduction_follows_from_the_printed_sizes(row):
    printed = TABLE_1[row]
    assert round(100 * (1 - printed.odn.size_mb / printed.full.size_mb), 2) == printed.size_reduction_pct


def test_macs_by_hand():
    """3x3 convolution 2 -> 4 channels on 6x6: 36 outputs x 4 x 18; norm 5 x 144; pool 144; linear 4 x 3."""
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), GlobalAveragePool(), nn.Linear(4, 3)
    )
    assert metrics.macs(layers, (2, 6, 6)) == 36 * 4 * 18 + 5 * 144 + 144 + 12


def test_measuring_leaves_the_network_as_it_was():
    network = build("resnet18", 1, 10, width=4).truncate(2).train()
    before = metrics.size_bytes(network), {key: tensor.clone() for key, tensor in network.state_dict().items()}
    metrics.structure(network, (1, 28, 28))
    assert network.training
    assert metrics.size_bytes(network) == before[0]
    assert all(torch.equal(tensor, before[1][key]) for key, tensor in network.state_dict().items())


def test_structure_per_depth_is_that_of_the_networks_cut_out():
    network = build("resnet18", 1, 10, width=4)
    cut_out = [{"depth": d, **metrics.structure(network.truncate(d), (1, 28, 28))} for d in (1, 2, 3)]
    assert metrics.structure_per_depth(network, (1, 28, 28), last_depth=3) == cut_out


def test_accuracy_counts_every_image_once(monkeypatch):
    """Also those of a last batch that is smaller; the mean of batch means would be another number."""
    monkeypatch.setattr(metrics, "EVALUATION_BATCH", 32)
    split = tiny_split(70, seed=5)
    network = build("resnet18", 1, 3, width=2).truncate(1).eval()
    logits = network(split.normalise(split.images)).detach()
    loss, accuracies = metrics.evaluate(network, split)
    assert accuracies == [100 * (logits.argmax(1) == split.labels).sum().item() / 70]
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5)


def test_timing_takes_turns():
    order = []
    tasks = {name: (lambda name=name: order.append(name)) for name in "ab"}
    assert set(metrics.in_turns(tasks, rounds=2)) == {"a", "b"}
    assert order == ["a", "b"] * 3  # the first round warms up


@pytest.mark.parametrize(("side", "images"), [(28, 1000), (64, 1000), (128, 250), (224, 81), (8192, 1)])
def test_large_images_are_evaluated_fewer_at_a_time(side, images):
    assert metrics.evaluation_batch((3, side, side)) == images
