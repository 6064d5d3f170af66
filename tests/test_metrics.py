"""The structural columns of Table I, and accuracy."""

import copy

import pytest
from torch import nn

from odnlib import metrics
from odnlib.architectures import GlobalAveragePool
from odnlib.data import DATASETS
from odnlib.models import build
from odnlib.paper import TABLE_1
from studies.latency import time_in_turns
from studies.report import count_macs_by_thop
from tests.conftest import same, tiny_split

# Row, variant: exact parameters; MACs in millions by the paper's rule, and as thop counts them. Three MACs figures
# differ from the printed ones: EMNIST's are those of 10 classes, or have a wrong digit, SVHN's full one is that of
# 28x28x1 images.
STRUCTURE = {
    ("mnist", "full"): (11_172_810, 458.21, 457.72),
    ("mnist", "odn"): (149_322, 117.36, 117.06),
    ("emnist", "full"): (11_181_018, 458.22, 457.73),
    ("emnist", "odn"): (382_170, 162.67, 162.32),
    ("fashion_mnist", "full"): (21_280_970, 939.91, 939.11),
    ("fashion_mnist", "odn"): (1_044_938, 337.08, 336.53),
    ("svhn", "full"): (21_282_122, 1164.53, 1163.50),
    ("svhn", "odn"): (750_666, 365.63, 364.97),
    ("cifar10", "full"): (23_520_842, 1315.02, 1311.56),
    ("cifar10", "odn"): (6_311_498, 906.19, 903.10),
}
MISPRINTED_MACS = {("emnist", "full"), ("emnist", "odn"), ("svhn", "full")}


@pytest.mark.parametrize(("row", "variant"), STRUCTURE)
def test_table_1(row, variant):
    printed, dataset = getattr(TABLE_1[row], variant), DATASETS[row]
    cut = build(TABLE_1[row].architecture, dataset.image_shape[0], dataset.classes).truncate(printed.depth)
    figures, thop_macs_m = (
        metrics.measure_size_and_macs(cut, dataset.image_shape),
        count_macs_by_thop(cut, dataset.image_shape) / 1e6,
    )
    macs_m = round(figures["macs_m"], 2)
    assert (figures["params"], macs_m, round(thop_macs_m, 2)) == STRUCTURE[row, variant]
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
    assert metrics.count_macs(layers, (2, 6, 6)) == 36 * 4 * 18 + 5 * 144 + 144 + 12


@pytest.mark.parametrize("measure", [metrics.measure_size_and_macs, count_macs_by_thop])
def test_measuring_leaves_the_network_as_it_was(measure):
    network = build("resnet18", 1, 10, width=4).truncate(2).train()
    before = metrics.size_bytes(network), copy.deepcopy(network.state_dict())
    measure(network, (1, 28, 28))
    assert network.training
    assert metrics.size_bytes(network) == before[0]
    assert same(network.state_dict(), before[1])


def test_structure_per_depth_is_that_of_the_networks_cut_out():
    network = build("resnet18", 1, 10, width=4)
    cut_out = [{"depth": d, **metrics.measure_size_and_macs(network.truncate(d), (1, 28, 28))} for d in (1, 2, 3)]
    assert metrics.measure_every_depth(network, (1, 28, 28), last_depth=3) == cut_out


def test_accuracy_counts_every_image_once(monkeypatch):
    """Also those of a last batch that is smaller; the mean of batch means would be another number."""
    monkeypatch.setattr(metrics, "LARGEST_EVALUATION_BATCH", 32)
    split = tiny_split(70, seed=5)
    network = build("resnet18", 1, 3, width=2).truncate(1).eval()
    logits = network(split.normalise(split.images)).detach()
    loss, accuracies = metrics.evaluate(network, split)
    assert accuracies == [100 * (logits.argmax(1) == split.labels).sum().item() / 70]
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5)


def test_timing_takes_turns():
    order = []
    tasks = {name: (lambda name=name: order.append(name)) for name in "ab"}
    assert set(time_in_turns(tasks, rounds=2)) == {"a", "b"}
    assert order == ["a", "b"] * 3  # the first round warms up


@pytest.mark.parametrize(("side", "images"), [(28, 1000), (64, 1000), (128, 250), (224, 81), (8192, 1)])
def test_large_images_are_evaluated_fewer_at_a_time(side, images):
    assert metrics.evaluation_batch_size((3, side, side)) == images
