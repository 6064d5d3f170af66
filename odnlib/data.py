"""Images as bytes on the device, and batches of them, normalised and augmented there.

The order of the images and their augmentation are functions of (seed, stage, epoch) alone, so a resumed run sees what
the uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional

from odnlib import embedded
from odnlib.recipes import Recipe


class DataError(RuntimeError):
    """The images cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Dataset:
    """What there is to know about one row's images. Splits, normalisation and augmentation: the released code."""

    title: str
    source: str  # class of torchvision.datasets
    image_shape: tuple[int, int, int]  # channels, height, width
    classes: int
    validation_images: int  # the last ones of the training part
    mean: float = 0.0  # of pixels scaled to 0..1, subtracted
    std: float = 1.0  # divided by
    crop_padding: int = 0  # pixels around the image before a random crop back to its size
    flip: bool = False  # horizontally, half of the images
    class_names: tuple[str, ...] = ()  # in the order of the labels, where they have names


GREY, COLOUR = (1, 28, 28), (3, 32, 32)
DATASETS = {
    "mnist": Dataset("MNIST", "MNIST", GREY, 10, 10_000, 0.1307, 0.3081),
    # The released code defines no validation images here: we take as many as there are for the test (see `_real`).
    "emnist": Dataset("EMNIST letters", "EMNIST", GREY, 26, 20_800, 0.1307, 0.3081),
    "fashion_mnist": Dataset("Fashion-MNIST", "FashionMNIST", GREY, 10, 10_000, 0.2860, 0.3530),
    "svhn": Dataset("SVHN", "SVHN", COLOUR, 10, 5_000),
    "cifar10": Dataset("CIFAR-10", "CIFAR10", COLOUR, 10, 5_000, crop_padding=4, flip=True),
}


def generator(*key: object) -> torch.Generator:
    """A random generator that is a function of `key`, e.g. (seed, stage, epoch)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64, both on the device."""

    images: Tensor
    labels: Tensor
    dataset: Dataset

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """Checksum of all images and labels."""
        digest = hashlib.sha256(self.images.cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 0..255 -> float, scaled to 0..1, minus mean, over std; channels last."""
        scaled = images.to(torch.get_default_dtype()).div_(255).sub_(self.dataset.mean).div_(self.dataset.std)
        return scaled.contiguous(memory_format=torch.channels_last)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in order, every image once; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.normalise(self.images[start : start + size]), self.labels[start : start + size]

    def shuffled_batches(
        self, size: int, drop_last: bool, random: torch.Generator, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in random order, augmented as the dataset says; `drop_last` leaves the smaller batch out.

        Args:
            first: so many images are left out, at the beginning: those that an interrupted epoch had seen.
        """
        order = torch.randperm(len(self), generator=random)
        shifts = torch.randint(2 * self.dataset.crop_padding + 1, (2, len(self)), generator=random)
        mirrored = torch.rand(len(self), generator=random) < 0.5
        order, shifts, mirrored = (x.to(self.images.device) for x in (order, shifts, mirrored))
        end = len(self) // size * size if drop_last and len(self) >= size else len(self)
        for start in range(first, end, size):
            chosen = order[start : start + size]
            images = self.images[chosen]
            if self.dataset.crop_padding:
                images = shifted(images, shifts[:, start : start + size], self.dataset.crop_padding)
            if self.dataset.flip:
                images = torch.where(mirrored[start : start + size, None, None, None], images.flip(3), images)
            yield self.normalise(images), self.labels[chosen]


def shifted(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Crop (N, C, H, W), padded with black by `padding` pixels, at the N corners `shifts` (2, N): rows, columns."""
    n, _, height, width = images.shape
    rows = shifts[0, :, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = shifts[1, :, None] + torch.arange(width, device=images.device)  # (N, W)
    padded = functional.pad(images, (padding,) * 4)
    image = torch.arange(n, device=images.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass
class Data:
    """The three splits of one row. The test split is looked at once, at the very end."""

    train: Split
    validation: Split
    test: Split


def load(recipe: Recipe, data_dir: Path | str, device: str = "cpu") -> Data:
    """The images of a recipe, downloaded into `data_dir` by torchvision where they are not there yet.

    Raises:
        DataError: one line that names the folder or file and says what to do.
    """
    dataset = DATASETS[recipe.row]
    if recipe.embedded:
        (images, labels), held_back = embedded.load(recipe.row), embedded.HELD_BACK
        (images, labels), test = (images[:-held_back], labels[:-held_back]), (images[-held_back:], labels[-held_back:])
    else:
        (images, labels), test = _real(recipe.row, Path(data_dir))
        held_back = dataset.validation_images
    train, validation = (images[:-held_back], labels[:-held_back]), (images[-held_back:], labels[-held_back:])
    validation = validation[0][: recipe.validation_images], validation[1][: recipe.validation_images]
    wanted = recipe.train_images
    if wanted is not None and wanted > len(train[0]):
        raise DataError(f"train_images {wanted}: {dataset.title} has {len(train[0])} (none means all)")
    if wanted is not None:
        chosen = torch.randperm(len(train[0]), generator=generator(recipe.seed, "subset"))[:wanted].numpy()
        train = train[0][chosen], train[1][chosen]
    parts = (train, validation, test)
    return Data(*(Split(torch.tensor(x, device=device), torch.tensor(y, device=device), dataset) for x, y in parts))


Arrays = tuple[np.ndarray, np.ndarray]  # images (N, C, H, W) uint8, labels (N,) int64


def _real(row: str, folder: Path) -> tuple[Arrays, Arrays]:
    """The training and the test part of a row's true dataset."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        next(folder.iterdir(), None)
    except OSError as error:
        raise DataError(f"data_dir {folder} cannot be read: {error.strerror}; pass a folder you may write to") from None
    with FileLock(folder / f".{row}.lock"):  # notebooks side by side: one downloads, the others wait
        parts = [_part(row, folder, training) for training in (True, False)]
    if row == "emnist":  # its training part is not shuffled by class or writer that we know of: shuffle, always alike
        order = torch.randperm(len(parts[0][0]), generator=generator("emnist split")).numpy()
        parts[0] = parts[0][0][order], parts[0][1][order]
    return parts[0], parts[1]


def _part(row: str, folder: Path, training: bool) -> Arrays:
    import torchvision.datasets  # takes seconds, and embedded images do without

    dataset = DATASETS[row]
    which = {"split": "train" if training else "test"} if row == "svhn" else {"train": training}
    if row == "emnist":
        which["split"] = "letters"
    try:
        loaded = getattr(torchvision.datasets, dataset.source)(root=folder, download=True, **which)
    except Exception as error:  # whatever a damaged file or a failed download raises
        if damaged := _damaged(row, folder):
            raise DataError(f"{'; '.join(damaged)}: delete it and start again, to have it downloaded anew") from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{dataset.title} is not in data_dir {folder} or cannot be read, and could not be downloaded ({reason}): "
            f"connect to the network, or pass a data_dir that torchvision.datasets.{dataset.source} can read"
        ) from None
    images = np.asarray(loaded.data, dtype=np.uint8)
    labels = np.asarray(loaded.labels if row == "svhn" else loaded.targets, dtype=np.int64)
    if row == "emnist":  # stored transposed; classes 1 to 26
        images, labels = images.transpose(0, 2, 1), labels - 1
    if row == "cifar10":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images.reshape(-1, *dataset.image_shape)), labels


def _damaged(row: str, folder: Path) -> list[str]:
    """A line for each file of a row's dataset that is there and is not what its publisher's md5 says."""
    import torchvision.datasets
    from torchvision.datasets.utils import calculate_md5

    source = getattr(torchvision.datasets, DATASETS[row].source)
    if row == "cifar10":
        parts = [(f"{source.base_folder}/{name}", md5) for name, md5 in source.train_list + source.test_list]
        files = [(source.filename, source.tgz_md5), *parts]
    elif row == "svhn":
        files = [(name, md5) for _, name, md5 in source.split_list.values()]
    elif row == "emnist":
        files = [("EMNIST/raw/gzip.zip", source.md5)]
    else:
        files = [(f"{source.__name__}/raw/{name}", md5) for name, md5 in source.resources]
    there = [(folder / name, md5) for name, md5 in files if (folder / name).is_file()]
    return [f"{path} is damaged (its md5 should be {md5})" for path, md5 in there if calculate_md5(path) != md5]
