"""Batches, splits, and what is said when there are no images."""

import itertools
import re
import socketserver
import struct
import threading
from operator import attrgetter

import numpy as np
import pytest
import torch

from odnlib import data, embedded
from odnlib.data import DataError, Dataset, Split, generator, load, shifted
from odnlib.recipes import resolve
from tests.conftest import tiny_split

AUGMENTED = Dataset("augmented", "none", (3, 8, 8), 3, 0, crop_padding=2, flip=True)


def test_embedded_digits():
    splits = vars(load(resolve("mnist"), "unused")).values()
    assert [tuple(split.images.shape) for split in splits] == [(1197, 1, 28, 28), (300, 1, 28, 28), (300, 1, 28, 28)]
    assert all(split.images.dtype == torch.uint8 and set(split.labels.tolist()) == set(range(10)) for split in splits)
    images = torch.cat([split.images for split in splits]).flatten(1)
    assert len(torch.unique(images, dim=0)) == 1797  # no image stands in two splits


@pytest.mark.slow
@pytest.mark.parametrize("row", data.DATASETS)
def test_embedded_images_have_the_true_shape_and_classes(row):
    dataset = data.DATASETS[row]
    images, labels = embedded.load(row)
    assert (images.shape[1:], images.dtype) == (dataset.image_shape, np.uint8)
    assert set(labels.tolist()) == set(range(dataset.classes))
    again, _ = embedded.load(row)
    assert (images == again).all()


def test_a_subset_is_a_function_of_the_seed():
    subsets = [load(resolve("mnist", seed=seed, train_images=100), "unused").train for seed in (0, 0, 1)]
    assert [len(subset) for subset in subsets] == [100] * 3
    assert subsets[0].sha256() == subsets[1].sha256() != subsets[2].sha256()
    with pytest.raises(DataError, match="train_images 5000: MNIST has 1197"):
        load(resolve("mnist", train_images=5000), "unused")


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [32, 32, 6]), (True, [32, 32])])
def test_shuffled_batches(drop_last, sizes):
    split = tiny_split(70, seed=1)
    split.labels = torch.arange(70)
    orders = []
    for epoch in (0, 0, 1):
        batches = list(split.shuffled_batches(32, drop_last, generator(0, "stage", epoch)))
        assert [len(labels) for _, labels in batches] == sizes
        orders.append(torch.cat([labels for _, labels in batches]).tolist())
    assert len(set(orders[0])) == sum(sizes)
    assert orders[0] == orders[1] != orders[2]


def test_normalise_by_hand():
    images = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    split = Split(images, torch.zeros(1, dtype=torch.long), data.DATASETS["mnist"])
    assert split.normalise(images).unique().item() == pytest.approx((1 - 0.1307) / 0.3081)
    floats = torch.randn(4, 1, 2, 2)
    assert torch.equal(split.normalise(floats), floats)
    assert split.normalise(floats).is_contiguous(memory_format=torch.channels_last)


def test_shifted_is_a_padded_crop():
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    shifts = torch.tensor([[0, 2, 4, 1], [2, 2, 0, 3]])
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for i, (row, column) in enumerate(shifts.T.tolist()):
        expected = padded[i, :, row : row + 8, column : column + 8]
        assert torch.equal(shifted(images, shifts, 2)[i], expected)


def test_augmentation_only_crops_and_flips():
    split = Split(torch.randint(1, 256, (200, 3, 8, 8), dtype=torch.uint8), torch.arange(200), AUGMENTED)
    padded = torch.nn.functional.pad(split.images, (2, 2, 2, 2)).float() / 255
    places = list(itertools.product(range(5), range(5), ((), (2,))))  # row, column, axes to flip
    seen = set()
    for images, labels in split.shuffled_batches(64, False, generator(1)):
        for image, label in zip(images, labels.tolist(), strict=True):
            crops = {place: padded[label, :, place[0] :, place[1] :][:, :8, :8].flip(place[2]) for place in places}
            matches = [key for key, crop in crops.items() if torch.allclose(crop, image)]
            assert len(matches) == 1
            seen.add(matches[0])
    assert len(seen) > 40  # of 50


def test_real_split_takes_the_last_ones_for_validation(tmp_path):
    raw, images = tmp_path / "MNIST" / "raw", torch.arange(60_000) % 251
    arrays = {"train-images-idx3": images[:, None, None].expand(-1, 28, 28), "train-labels-idx1": images % 10}
    arrays |= {"t10k-images-idx3": torch.zeros(10, 28, 28), "t10k-labels-idx1": torch.zeros(10)}
    raw.mkdir(parents=True)
    for name, array in arrays.items():
        header = struct.pack(f">HBB{array.dim()}I", 0, 8, array.dim(), *array.shape)
        (raw / f"{name}-ubyte").write_bytes(header + array.to(torch.uint8).numpy().tobytes())
    parts = load(resolve("mnist", profile="paper"), tmp_path)
    assert torch.equal(parts.train.images[:, 0, 0, 0].long(), images[:50_000])
    assert torch.equal(parts.validation.images[:, 0, 0, 0].long(), images[50_000:])
    assert len(parts.test) == 10


def refusal(folder, row="mnist"):
    """The one line that says why there are no images."""
    with pytest.raises(DataError) as error:
        load(resolve(row, profile="paper"), folder)
    (line,) = str(error.value).splitlines()
    return line


@pytest.fixture
def no_network(monkeypatch):
    """As on a machine where nothing can be downloaded."""

    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)


@pytest.mark.parametrize("row", data.DATASETS)
def test_empty_folder_without_network(row, tmp_path, no_network):
    assert re.search(f"not in data_dir {tmp_path} .*connect to the network", refusal(tmp_path, row))


def test_a_truncated_dataset_is_named_with_its_checksum(tmp_path, no_network):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b" + 100 * b"x")
    expected = "train-images-idx3-ubyte.gz is damaged (its md5 should be f68b3c2dcbeaaa9fbdd348bbdeb94873): delete it"
    assert expected in refusal(tmp_path)


class Cut(socketserver.StreamRequestHandler):
    """Promises 10 MB, sends 1,000 bytes and hangs up."""

    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + 1000 * b"x")


def test_a_download_that_is_cut(tmp_path, monkeypatch):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Cut) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [f"http://127.0.0.1:{server.server_address[1]}/"])
        assert re.match(f"{tmp_path}/MNIST/raw/train-images.* damaged .*to have it downloaded anew", refusal(tmp_path))
        server.shutdown()


# Row: validation images, mean, std, padding of the random crop, flips (the released code).
RELEASED = {
    "mnist": (10_000, 0.1307, 0.3081, 0, False),
    "emnist": (20_800, 0.1307, 0.3081, 0, False),
    "fashion_mnist": (10_000, 0.2860, 0.3530, 0, False),
    "svhn": (5_000, 0.0, 1.0, 0, False),
    "cifar10": (5_000, 0.0, 1.0, 4, True),
}


def test_splits_and_preparation_of_the_released_code():
    facts = attrgetter("validation_images", "mean", "std", "crop_padding", "flip")
    assert {row: facts(dataset) for row, dataset in data.DATASETS.items()} == RELEASED
