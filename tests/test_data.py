"""Batches, splits, and what is said when there are no images."""

import gzip
import hashlib
import itertools
import re
import socket
import socketserver
import struct
import threading
from operator import attrgetter
from typing import ClassVar

import numpy as np
import pytest
import torch

from odnlib import data, embedded
from odnlib.data import DataError, Dataset, Split, load_splits, seeded_generator, shift_images
from odnlib.recipes import resolve
from tests.conftest import tiny_split

AUGMENTED = Dataset("augmented", "none", (3, 8, 8), 3, 0, crop_padding=2, flip=True)


def test_stand_ins_are_split():
    splits = vars(load_splits(resolve("mnist"), "unused")).values()
    assert [tuple(split.images.shape) for split in splits] == [(500, 1, 28, 28), (250, 1, 28, 28), (250, 1, 28, 28)]
    assert all(split.images.dtype == torch.uint8 and set(split.labels.tolist()) == set(range(10)) for split in splits)
    images = torch.cat([split.images for split in splits]).flatten(1)
    assert len(torch.unique(images, dim=0)) == 1000  # no image stands in two splits


@pytest.mark.parametrize("row", data.DATASETS)
def test_embedded_images_have_the_true_shape_and_classes(row):
    dataset = data.DATASETS[row]
    images, labels = embedded.draw_stand_ins(row)
    assert (images.shape[1:], images.dtype) == (dataset.image_shape, np.uint8)
    assert set(labels.tolist()) == set(range(dataset.classes))
    again, _ = embedded.draw_stand_ins(row)
    assert (images == again).all()


@pytest.mark.parametrize("row", data.DATASETS)
def test_of_stand_ins_a_small_window_tells_no_class(row):
    """No two classes lie to each other alike, and all have as much light."""
    _, sizes, *_ = embedded.MARKS_OF_DATASET[row]
    places = embedded.mark_displacements(row)
    kinds = len(np.unique(np.concatenate([places, -places]), axis=0))
    assert (len(places) * sizes, kinds) == (data.DATASETS[row].classes, 2 * len(places))
    images, labels = embedded.draw_stand_ins(row)
    bright = images.astype(float).sum((1, 2, 3))
    means = [bright[labels == label].mean() for label in range(0, data.DATASETS[row].classes, sizes)]
    assert np.ptp(means) < bright.std()
    recipe = resolve(row)
    assert (recipe.flip, recipe.crop_padding) == (False, 0), "a mirrored direction is another class"


def test_a_subset_is_a_function_of_the_seed():
    subsets = [load_splits(resolve("mnist", seed=seed, train_images=100), "unused").train for seed in (0, 0, 1)]
    assert [len(subset) for subset in subsets] == [100] * 3
    assert subsets[0].sha256() == subsets[1].sha256() != subsets[2].sha256()
    for name, there in {"train_images": 500, "validation_images": 250}.items():
        with pytest.raises(DataError, match=f"{name} 5000: MNIST has {there} .none means all"):
            load_splits(resolve("mnist", **{name: 5000}), "unused")


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [32, 32, 6]), (True, [32, 32])])
def test_shuffled_batches(drop_last, sizes):
    split = tiny_split(70, seed=1)
    split.labels = torch.arange(70)
    orders = []
    for epoch in (0, 0, 1):
        batches = list(split.shuffled_batches(32, drop_last, seeded_generator(0, "stage", epoch)))
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
        assert torch.equal(shift_images(images, shifts, 2)[i], expected)


def test_augmentation_only_crops_and_flips():
    split = Split(torch.randint(1, 256, (200, 3, 8, 8), dtype=torch.uint8), torch.arange(200), AUGMENTED)
    padded = torch.nn.functional.pad(split.images, (2, 2, 2, 2)).float() / 255
    places = list(itertools.product(range(5), range(5), ((), (2,))))  # row, column, axes to flip
    seen = set()
    for images, labels in split.shuffled_batches(64, False, seeded_generator(1)):
        for image, label in zip(images, labels.tolist(), strict=True):
            crops = {place: padded[label, :, place[0] :, place[1] :][:, :8, :8].flip(place[2]) for place in places}
            matches = [key for key, crop in crops.items() if torch.allclose(crop, image)]
            assert len(matches) == 1
            seen.add(matches[0])
    assert len(seen) > 40  # of 50


def idx_files():
    """MNIST's four files with images that tell their place: name -> content."""
    images, files = torch.arange(60_000) % 251, {}
    arrays = {"train-images-idx3": images[:, None, None].expand(-1, 28, 28), "train-labels-idx1": images % 10}
    arrays |= {"t10k-images-idx3": torch.zeros(10, 28, 28), "t10k-labels-idx1": torch.zeros(10)}
    for name, array in arrays.items():
        header = struct.pack(f">HBB{array.dim()}I", 0, 8, array.dim(), *array.shape)
        files[f"{name}-ubyte"] = header + array.to(torch.uint8).numpy().tobytes()
    return files


def test_real_split_takes_the_last_ones_for_validation(tmp_path):
    raw, images = tmp_path / "MNIST" / "raw", torch.arange(60_000) % 251
    raw.mkdir(parents=True)
    for name, content in idx_files().items():
        (raw / name).write_bytes(content)
    parts = load_splits(resolve("mnist", profile="paper"), tmp_path)
    assert torch.equal(parts.train.images[:, 0, 0, 0].long(), images[:50_000])
    assert torch.equal(parts.validation.images[:, 0, 0, 0].long(), images[50_000:])
    assert len(parts.test) == 10


def refusal(folder, row="mnist"):
    """The one line that says why there are no images."""
    with pytest.raises(DataError) as error:
        load_splits(resolve(row, profile="paper"), folder)
    (line,) = str(error.value).splitlines()
    return line


@pytest.fixture
def no_network(monkeypatch):
    """As on a machine where nothing can be downloaded."""

    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("row", data.DATASETS)
def test_empty_folder_without_network(row, tmp_path, no_network):
    line = refusal(tmp_path, row)
    assert re.search(f"not in data_dir {tmp_path} .*connect to the network", line)
    assert all(f"{address}: Name or service not known" in line for address in data.DOWNLOAD_ADDRESSES[row])
    assert len(data.DOWNLOAD_ADDRESSES[row]) > 1


def test_a_truncated_dataset_is_named_with_its_checksum(tmp_path, no_network):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b" + 100 * b"x")
    expected = "train-images-idx3-ubyte.gz is damaged (its md5 should be f68b3c2dcbeaaa9fbdd348bbdeb94873); MNIST is"
    assert expected in refusal(tmp_path)


class Server(socketserver.StreamRequestHandler):
    """The first part of the path says how it fails; /good/ has what the test put into `files`."""

    files: ClassVar = {}

    def handle(self):
        self.connection.settimeout(None)  # the client's time limit is this process's default
        _, how, name = self.rfile.readline().split()[1].decode().split("/")
        while self.rfile.readline().strip():
            pass
        page = b"<html>This mirror has moved.</html>"
        answers = {"cut": b"200 OK\r\nContent-Length: 9000000\r\n\r\nxxx", "busy": b"503 Busy\r\n\r\n"}
        answers |= {"missing": b"404 Not Found\r\n\r\n", "page": b"200 OK\r\n\r\n" + page, "none": b"200 OK"}
        answers |= {"loop": b"302 Found\r\nLocation: " + f"/loop/{name}\r\n\r\n".encode(), "rubbish": b"\0" * 9}
        answers |= {"good": b"200 OK\r\n\r\n" + self.files.get(name, b"")}
        if how != "hangup":
            self.wfile.write(b"HTTP/1.1 " * (how != "rubbish") + answers[how])
        if how == "none":
            self.rfile.read(1)  # waits for whoever waits


@pytest.fixture
def server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


FAILURES = ("cut", "busy", "missing", "page", "none", "loop", "rubbish", "hangup")


@pytest.mark.slow
@pytest.mark.parametrize("row", ["mnist", "emnist", "svhn", "cifar10"])
def test_however_an_address_fails_the_next_is_tried(row, server, tmp_path, monkeypatch):
    """All in turn, and at the end one that answers with what is not the dataset: each is named with its reason."""
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT_SECONDS", 2.0)
    unreachable = "http://127.0.0.1:9/"
    monkeypatch.setitem(data.DOWNLOAD_ADDRESSES, row, [unreachable, *(f"{server}/{how}/" for how in FAILURES)])
    line = refusal(tmp_path, row)
    for address in data.DOWNLOAD_ADDRESSES[row]:
        assert f"{address}: " in line
    for reason in ("refused", "503", "404", "corrupted", "timed out"):
        assert reason in line, reason
    assert socket.getdefaulttimeout() is None


@pytest.mark.slow
@pytest.mark.parametrize("how", FAILURES)
def test_what_one_address_cannot_give_comes_from_the_next(how, server, tmp_path, monkeypatch):
    files = {f"{name}.gz": gzip.compress(content) for name, content in idx_files().items()}
    published = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", published)
    monkeypatch.setattr(Server, "files", files)
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setitem(data.DOWNLOAD_ADDRESSES, "mnist", [f"{server}/{how}/", f"{server}/good/"])
    sizes = [len(split) for split in vars(load_splits(resolve("mnist", profile="paper"), tmp_path)).values()]
    assert sizes == [50_000, 10_000, 10]
    monkeypatch.setitem(data.DOWNLOAD_ADDRESSES, "mnist", [])  # what is there is found, also in its own folder
    assert len(load_splits(resolve("mnist", profile="paper"), tmp_path / "MNIST").test) == 10


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
