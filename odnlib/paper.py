"""Table I of the paper, with the digits as published - data only.

Source: "Optimally Deep Networks - Adapting Model Depth to Datasets for Superior Efficiency", S. A. K. Tareen and F. K.
Tareen. Its column "FLOPs" holds multiply-accumulates (see `metrics`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PrintedNetwork:
    """Holds the values that the paper's Table I gives for one network, trained on one dataset."""

    depth: int  # number of blocks
    params_m: float  # millions
    size_mb: float  # 10^6 bytes
    macs_m: float  # millions of multiply-accumulates per image
    test_acc_pct: float


@dataclass(frozen=True)
class PrintedRow:
    """Holds what Table I gives for one dataset: the whole and the optimally deep network, and the size reduction."""

    title: str  # of the dataset
    architecture: str
    full: PrintedNetwork  # the whole one
    odn: PrintedNetwork  # the optimally deep one
    size_reduction_pct: float


TABLE_1 = {  # by the dataset's name in recipes
    "mnist": PrintedRow(
        "MNIST", "resnet18",
        PrintedNetwork(8, 11.17, 44.78, 458.21, 99.61), PrintedNetwork(2, 0.15, 0.61, 117.36, 99.31),
        size_reduction_pct=98.64,
    ),
    "emnist": PrintedRow(
        "EMNIST", "resnet18",
        PrintedNetwork(8, 11.17, 44.78, 458.21, 95.17), PrintedNetwork(3, 0.38, 1.55, 162.37, 95.04),
        size_reduction_pct=96.54,
    ),
    "fashion_mnist": PrintedRow(
        "Fashion-MNIST", "resnet34",
        PrintedNetwork(16, 21.28, 85.29, 939.91, 94.52), PrintedNetwork(6, 1.04, 4.23, 337.08, 93.54),
        size_reduction_pct=95.04,
    ),
    "svhn": PrintedRow(
        "SVHN", "resnet34",
        PrintedNetwork(16, 21.28, 85.29, 939.91, 96.51), PrintedNetwork(5, 0.75, 3.04, 365.63, 96.08),
        size_reduction_pct=96.44,
    ),
    "cifar10": PrintedRow(
        "CIFAR-10", "resnet50",
        PrintedNetwork(16, 23.52, 94.43, 1315.02, 95.01), PrintedNetwork(11, 6.31, 25.44, 906.19, 93.35),
        size_reduction_pct=73.06,
    ),
}  # fmt: skip
