"""Your own images as the three splits of a run: a folder with one folder per class, or a dataset of torchvision."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from odnlib import embedded
from odnlib.data import Arrays, Data, DataError, Dataset, Split, generator

HELD_BACK = 0.15  # of the images for validation, and as many for the test, where the folder has no such parts
FEWEST = 5  # images that a class needs, to be in every split
LARGEST, SMALLEST = 64, 16  # pixels a side: larger images are scaled down unless `image_size` says otherwise
TEST_PARTS, VALIDATION_PARTS = ("test",), ("val", "valid", "validation")
SAID = 5  # problems that a message lists
PICTURES = {".heic", ".heif", ".avif", ".jxl", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng"}  # that Pillow may lack


def load(source: str, data_dir: Path | str, image_size: int = 0, flip: bool = True, device: str = "cpu") -> Data:
    """The images at `source`, square and of one size, as splits that are the same at every call.

    Classes are the names of the folders. Folders `train`, `val` and `test` above them are taken as the splits that
    they name; what is missing of validation and test is held back from training, class by class. Images are grey where
    all of them are. Training images are shifted by up to an eighth and, with `flip`, mirrored.

    Args:
        source: a folder, or the name of a class of torchvision.datasets, downloaded into `data_dir`.
        image_size: pixels a side; 0: as they are if they are alike, square and small, otherwise at most 64.
        flip: false where left and right matter, as in writing.

    Raises:
        DataError: what is wrong with the images, and what to do.
    """
    folder = Path(source).expanduser()
    name = folder.resolve().name if folder.is_dir() else source
    if folder.is_dir():
        found = listed(folder)
        classes = sorted({path.parent.name for paths in found.values() for path in paths})
        parts = {part: (paths, [classes.index(path.parent.name) for path in paths]) for part, paths in found.items()}
    elif dataset := _of_torchvision(source):
        parts, classes = _items(dataset, source, Path(data_dir))
    else:
        place = folder.absolute()
        raise DataError(f"images {source!r}: there is no folder {place}, and no such class in torchvision.datasets")
    _refuse(parts, classes, source)
    every = [image for images, _ in parts.values() for image in images]
    size, channels = _shape(every, source, image_size)
    needed, free = len(every) * channels * size**2, psutil.virtual_memory().available
    if needed > free / 2:
        raise DataError(
            f"{source}: {len(every):,} images of {size}x{size} pixels take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} "
            "GB of memory are free: pass a smaller image_size, or fewer images"
        )
    arrays = {}
    for part, (images, labels) in parts.items():
        arrays[part] = _pixels(images, size, channels, source), np.asarray(labels, dtype=np.int64)
    arrays = _with_all_splits(arrays)
    mean, std = _mean_and_std(arrays["train"][0])
    about = Dataset(
        name, f"folder {name}" if folder.is_dir() else f"torchvision.datasets.{name}", (channels, size, size),
        len(classes), len(arrays["validation"][1]), mean, std, size // 8, flip, tuple(classes),
    )  # fmt: skip
    splits = [arrays[part] for part in ("train", "validation", "test")]
    return Data(*(Split(torch.tensor(x, device=device), torch.tensor(y, device=device), about) for x, y in splits))


def row(data: Data) -> str:
    """The name of these images among runs: other images, or the same ones prepared otherwise, have another."""
    about = data.train.dataset
    digest = hashlib.sha256(repr((about.image_shape, about.flip, about.class_names)).encode())
    for split in (data.train, data.validation, data.test):
        digest.update(split.sha256().encode())
    plain = re.sub("[^a-z0-9]+", "_", about.title.lower()).strip("_") or "images"
    return f"own_{plain}_{digest.hexdigest()[:8]}"


def summary(data: Data) -> pd.DataFrame:
    """Images of each class in each split, and all of them."""
    names, splits = (
        data.train.dataset.class_names,
        {"training": data.train, "validation": data.validation, "test": data.test},
    )
    counts = {part: split.labels.bincount(minlength=len(names)).cpu() for part, split in splits.items()}
    return pd.DataFrame(counts, index=pd.Index(names, name="class")).T.assign(all=lambda table: table.sum(axis=1))


def listed(folder: Path) -> dict[str, list[Path]]:
    """part -> its images, in order. A class is a folder that has images in it.

    Raises:
        DataError: where images would be left out: elsewhere than in class folders, or of a kind that cannot be read.
    """
    known = set(Image.registered_extensions())
    unknown = [x for x in folder.glob("**/*") if x.suffix.lower() in PICTURES - known]
    if unknown:
        where = f"{len(unknown)} images cannot be read, e.g. {unknown[0].relative_to(folder)}"
        raise DataError(f"{folder}: {where}: convert them to JPEG or PNG, or take them away")

    def images(place: Path, pattern: str) -> list[Path]:
        hidden = len(place.parts)
        found = (path for path in place.glob(pattern) if path.suffix.lower() in known)
        return sorted(path for path in found if not any(part.startswith(".") for part in path.parts[hidden:]))

    parts = {"train": ("train",), "validation": VALIDATION_PARTS, "test": TEST_PARTS}
    if (folder / "train").is_dir():
        found = {part: [x for name in names for x in images(folder / name, "*/*")] for part, names in parts.items()}
    else:
        found = {"train": images(folder, "*/*")}
    elsewhere = sorted(set(images(folder, "**/*")).difference(*found.values()))
    if elsewhere:
        where = f"{len(elsewhere)} images lie elsewhere than in class folders, e.g. {elsewhere[0].relative_to(folder)}"
        raise DataError(f"{folder}: {where}: put them into the folder of their class, or take them away")
    top = folder / "train" if (folder / "train").is_dir() else folder
    filled = {path.parent for path in found["train"]}
    if empty := sorted(x.name for x in top.iterdir() if x.is_dir() and x.name[0] != "." and x not in filled):
        raise DataError(
            f"{top}: no images in {', '.join(empty[:SAID])}: a folder there is a class; fill it or remove it"
        )
    return {part: paths for part, paths in found.items() if paths or part == "train"}


def _of_torchvision(name: str) -> type | None:
    import torchvision.datasets  # takes seconds

    found = getattr(torchvision.datasets, name, None)
    return found if inspect.isclass(found) else None


class Item(NamedTuple):
    """One image of a dataset of torchvision, not yet read."""

    dataset: Sequence
    number: int

    def __str__(self) -> str:
        return f"image {self.number}"


def _items(dataset: type, name: str, folder: Path) -> tuple[dict[str, tuple[list, list[int]]], list[str]]:
    """part -> (images, labels), and the names of the classes."""
    takes, loaded = inspect.signature(dataset).parameters, {}
    splits = {"train": "train", "validation": "val", "test": "test"}
    chosen = {part: {"split": split} for part, split in splits.items()} if "split" in takes else {}
    chosen = {"train": {"train": True}, "test": {"train": False}} if "train" in takes else chosen
    try:
        for part, which in chosen.items():
            try:
                loaded[part] = dataset(root=folder, download=True, **which)
            except ValueError:  # no such split, which only validation may lack
                if part != "validation":
                    raise
        labels = {part: [int(label) for _, label in items] for part, items in loaded.items()}
        pictures = all(isinstance(items[0][0], Image.Image) for items in loaded.values())
    except Exception as error:  # whatever a damaged file, a failed download or another kind of dataset raises
        raise DataError(f"{name} of torchvision.datasets could not be had in {folder} ({error})") from None
    if not loaded or not pictures:
        raise DataError(
            f"{name} of torchvision.datasets is not a training and a test part of images with a class each: save its "
            "images into a folder per class"
        )
    names = getattr(loaded["train"], "classes", None) or range(1 + max(map(max, labels.values())))
    parts = {part: ([Item(items, i) for i in range(len(items))], labels[part]) for part, items in loaded.items()}
    return parts, [str(x) for x in names]


def opened(image: Path | Item) -> Image.Image:
    return Image.open(image) if isinstance(image, Path) else image.dataset[image.number][0]


def _refuse(parts: dict[str, tuple[Sequence, Sequence[int]]], classes: Sequence[str], source: str) -> None:
    """Raise DataError where these cannot be learned from."""
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no images in class folders"
        raise DataError(f"{source} has {found}: put the images of each class into a folder of its own, two at least")
    for part, (_, labels) in parts.items():
        held_back = part == "train" and len(parts) < 3
        fewest, counts = FEWEST if held_back else 1, Counter(labels)
        few = [f"{name!r} {counts[i]}" for i, name in enumerate(classes) if counts[i] < fewest]
        if few and (part == "train" or len(few) == len(classes)):
            more = f" and {len(few) - SAID} more" if len(few) > SAID else ""
            said = f"{', '.join(few[:SAID])}{more}"
            raise DataError(
                f"{source}, {part}: too few images ({said}): {fewest} per class are the least, hundreds are good"
            )


def _shape(images: list, source: str, wanted: int) -> tuple[int, int]:
    """Pixels a side and channels for all images, from their headers."""
    if wanted and not SMALLEST <= wanted <= 1024:
        raise DataError(f"image_size {wanted} is not 0 or a number of pixels from {SMALLEST} to 1024")
    headers = _each(images, lambda image: (opened(image).size, opened(image).mode), source, "looking at")
    sizes = Counter(size for size, _ in headers)
    shorter = sorted(min(size) for size in sizes.elements())[len(headers) // 2]
    size = wanted or min(LARGEST, max(SMALLEST, shorter))
    return size, 1 if all(mode in ("1", "L", "LA") for _, mode in headers) else 3


def _pixels(images: list, size: int, channels: int, source: str) -> np.ndarray:
    """(N, channels, size, size) uint8: scaled to the shorter side, the middle cut out."""

    def one(image: Path | Item) -> np.ndarray:
        loaded = opened(image)
        if loaded.mode.startswith(("I", "F")):
            raise ValueError(f"mode {loaded.mode}, more than 8 bits a channel")
        upright = ImageOps.exif_transpose(loaded)
        if upright.has_transparency_data:  # on white, as pages show it
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        upright = upright.convert("L" if channels == 1 else "RGB")
        fitted = upright if upright.size == (size, size) else ImageOps.fit(upright, (size, size))
        return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)

    return np.stack(_each(images, one, source, "reading"))


def _each(images: list, do: Callable, source: str, doing: str) -> list:
    """`do` for all images, side by side; DataError that names those where it fails."""

    def tried(image: object) -> tuple[object, str]:
        try:
            return do(image), ""
        except Exception as error:  # PIL raises all kinds on damaged files
            name = (
                Path(image).relative_to(source) if isinstance(image, Path) and Path(source) in image.parents else image
            )
            return None, f"{name} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"

    with ThreadPoolExecutor() as pool:
        done = list(tqdm(pool.map(tried, images), doing, len(images), leave=False, unit="image"))
    if failed := [problem for _, problem in done if problem]:
        more = f" and {len(failed) - SAID} more" if len(failed) > SAID else ""
        raise DataError(f"{source}: cannot be read: {'; '.join(failed[:SAID])}{more}: repair or remove them")
    return [result for result, _ in done]


def _mean_and_std(images: np.ndarray) -> tuple[float, float]:
    """Of pixels scaled to 0..1; some million at a time, because there is not the memory for all as numbers."""
    mean = square = 0.0
    for part in np.array_split(images.reshape(-1), images.size // 10**7 + 1):
        scaled = part.astype(np.float64) / 255
        mean, square = mean + float(scaled.sum()) / images.size, square + float((scaled**2).sum()) / images.size
    return mean, max(square - mean**2, 0.0) ** 0.5 or 1.0


def _with_all_splits(arrays: dict[str, Arrays]) -> dict[str, Arrays]:
    """Hold validation and test images back from training where there are none, the same share of every class."""
    missing = [part for part in ("validation", "test") if part not in arrays]
    images, labels = arrays["train"]
    taken: dict[str, list[int]] = {part: [] for part in (*missing, "train")}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[torch.randperm(len(members), generator=generator("own split", int(label))).numpy()]
        share = max(1, round(HELD_BACK * len(members)))
        for i, part in enumerate(missing):
            taken[part].extend(members[i * share : (i + 1) * share])
        taken["train"].extend(members[len(missing) * share :])
    return arrays | {part: (images[sorted(chosen)], labels[sorted(chosen)]) for part, chosen in taken.items()}


def example(folder: Path) -> Path:
    """A folder of class folders to try this with: embedded drawings, ten kinds of shapes (`embedded.SHAPES`)."""
    if not folder.exists():
        images, labels = embedded.load("cifar10")
        _write(folder, images, labels, [f"{shape}_{stripes}" for stripes in ("fine", "coarse") for shape in SHAPES])
    return folder


SHAPES = ("triangle", "star4", "star5", "star8", "hexagon")


def _write(folder: Path, images: np.ndarray, labels: np.ndarray, names: Iterable[str]) -> None:
    """Images (N, C, H, W) uint8 as PNG files, whole or not at all."""
    names, unfinished = list(names), folder.with_name(f".{folder.name}")
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = unfinished / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(place / f"{number:05d}.png")
    unfinished.rename(folder)
