"""Measure the chain on folders of photographs that are not the rows' images, beside two peers: photographs.csv.

    python results/photographs.py SVHN_NPZ CIFAR10_FOLDER [SPLITS]

SVHN_NPZ holds X (N, 32, 32, 3), uint8, and y, with 0 as 10, as test_32x32.mat does; its images 5,000 to 9,999 are used.
By design (results/notes.md): a split draws a folder of photographs, which is read and divided as anybody's; the test is
all other photographs of the same classes. Peers: logistic regression, and three convolutions of as many bytes.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import CIFAR10

from odnlib import experiment, metrics, presets
from odnlib.architectures import GlobalAveragePool
from odnlib.data import Split, seeded_generator
from odnlib.files import ROOT, write_rounded_csv
from odnlib.search import one_cycle_rate

sys.path.insert(0, str(ROOT / "notebooks"))
from studies import answer, export, ladder, own

DEPTH = 3
SETS = {  # name: labels, photographs of each, mirrored, widths of the chain
    "SVHN, digits 1 to 3": ((1, 2, 3), 300, False, (19,)),
    "SVHN, ten digits": (tuple(range(1, 11)), 150, False, (19, 32)),
    "CIFAR-10, cats and dogs": ((3, 5), 500, True, (32,)),
}


def three_convolutions(channels_in: int, classes: int, size_bytes: int) -> nn.Module:
    """Return three 3x3 convolutions with BatchNorm and pooling, as wide as so many bytes allow, and a linear layer."""

    def build(width: int) -> nn.Module:
        parts, channels = [], channels_in
        for out in (width, 2 * width, 4 * width):
            parts += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            parts.append(nn.MaxPool2d(2))
            channels = out
        return nn.Sequential(*parts, GlobalAveragePool(), nn.Linear(channels, classes))

    return max((build(x) for x in range(8, 80)), key=lambda x: (y := metrics.size_bytes(x)) * (y <= size_bytes * 1.01))


def train_peer(network: nn.Module, train: Split, epochs: int, seed: int) -> None:
    """Train a network as the ladder's are trained: the same batches, shifts, mirroring, rates and decay."""
    rule, steps = presets.SETTINGS_OF_RULE["equal"], -(-len(train) // presets.SETTINGS_OF_RULE["equal"]["batch_size"])
    settings = {"momentum": 0.9, "weight_decay": ladder.WEIGHT_DECAY, "nesterov": True}
    optimizer = torch.optim.SGD(network.parameters(), rule["rate"], **settings)
    network.train().to(memory_format=torch.channels_last)
    for epoch in range(epochs):
        batches = train.shuffled_batches(rule["batch_size"], False, seeded_generator(seed, "peer", epoch))
        for number, (images, labels) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = one_cycle_rate(rule["rate"], (epoch + number / steps) / epochs)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()


def measure(name: str, images: np.ndarray, labels: np.ndarray, split: int, folder: Path) -> list[dict]:
    """Return a record per network for one split of a set: test accuracy (%), bytes and seconds of training."""
    classes, each, flip, widths = SETS[name]
    random, chosen = np.random.default_rng(split), []
    for label in classes:
        chosen += list(random.permutation(np.flatnonzero(labels == label))[:each])
        (folder / f"{label:02d}").mkdir(parents=True)
    for x in chosen:
        Image.fromarray(images[x]).save(folder / f"{labels[x]:02d}" / f"{x}.png")
    data = own.load_images(str(folder), flip=flip)
    rest = np.setdiff1d(np.flatnonzero(np.isin(labels, classes)), chosen)
    named = torch.tensor([classes.index(x) for x in labels[rest]])
    test = Split(torch.from_numpy(images[rest]).permute(0, 3, 1, 2).contiguous(), named, data.train.dataset)
    epochs, about = presets.epochs_for_own_images(len(data.train)), {"set": name, "split": split, "test": len(rest)}
    logistic = answer.fit_simple_classifiers(data.train)["logistic regression on the pixels"](test)
    accuracy = 100 * np.mean(logistic.argmax(1) == named.numpy())
    records = [about | {"network": "logistic regression", "acc_pct": accuracy}]
    row = own.make_row_name(data)
    for recipe in ladder.plan_recipes(
        row, "quick", split, [(x, DEPTH) for x in widths], depth_epochs=epochs, threads=1
    ):
        start = time.monotonic()
        run = experiment.run(recipe, lambda: data, folder / "results", tested=False)
        network, seconds = export.load_network(run, data.train.dataset), time.monotonic() - start
        torch.manual_seed(split)
        peer, start = three_convolutions(3, len(classes), metrics.size_bytes(network)), time.monotonic()
        train_peer(peer, data.train, epochs, split)
        trained = {f"chain, width {recipe.width}": (network, seconds)}
        trained[f"three convolutions, as chain {recipe.width}"] = peer, time.monotonic() - start
        for kind, (tried, taken) in trained.items():
            result = {"network": kind, "bytes": metrics.size_bytes(tried), "epochs": epochs, "seconds": taken}
            records.append(about | result | {"acc_pct": metrics.evaluate(tried, test)[1][0]})
    return records


if __name__ == "__main__":
    torch.set_num_threads(1)
    (npz, cifar10), splits = sys.argv[1:3], int((*sys.argv, 5)[3])
    photographs, pets, tables = np.load(npz), CIFAR10(cifar10, train=True), []
    sources = {
        "SVHN": (photographs["X"][5000:], photographs["y"][5000:]),
        "CIFAR-10": (pets.data, np.array(pets.targets)),
    }
    for name, split in ((name, split) for split in range(splits) for name in SETS):
        with tempfile.TemporaryDirectory() as folder:
            tables += measure(name, *sources[name.partition(",")[0]], split, Path(folder) / "photographs")
            print(*tables[-2:], sep="\n", flush=True)
        write_rounded_csv(ROOT / "results" / "photographs.csv", pd.DataFrame(tables))
