"""The second opinion on multiply-accumulates."""

import pytest
import torch

from odnlib.data import DATASETS
from odnlib.models import build
from odnlib.paper import TABLE_1
from studies.thop_count import thop_macs

# Millions of each row's full and optimally deep network.
COUNTED = {
    "mnist": (457.72, 117.06),
    "emnist": (457.73, 162.32),
    "fashion_mnist": (939.11, 336.53),
    "svhn": (1163.50, 364.97),
    "cifar10": (1311.56, 903.10),
}


@pytest.mark.parametrize("row", COUNTED)
def test_table_1(row):
    printed, dataset = TABLE_1[row], DATASETS[row]
    whole = build(printed.architecture, dataset.image_shape[0], dataset.classes)
    cuts = [whole.truncate(line.depth) for line in (printed.full, printed.odn)]
    assert tuple(round(thop_macs(cut, dataset.image_shape) / 1e6, 2) for cut in cuts) == COUNTED[row]


def test_counting_leaves_the_network_as_it_was():
    network = build("resnet18", 1, 10, width=4).truncate(2).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    thop_macs(network, (1, 28, 28))
    assert network.training
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
