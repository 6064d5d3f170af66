"""Notebook 10: your own images as training, validation and test splits, and the depth recommended for them."""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

from odnlib import embedded
from odnlib.data import Data, DataError, Dataset, Split, seeded_generator
from odnlib.presets import EXAMPLE_NAME
from studies import pictures
from studies.predict import prepare_image

LAYOUT = ". It should hold a folder for each class: photos/cats/1.jpg, photos/dogs/1.jpg, ..."
SHARE_HELD_BACK = 0.15  # of the images for validation, and as many for the test, where the folder has no such parts
TOTAL_COLUMN = "all / classes"  # no folder's name, and so no class's, has a slash
MOST_LETTERS_OF_NAME = 40  # of a folder, that name its runs
UNWRITABLE_UNICODE_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # controls, bytes that are no text, line breaks
pd.set_option("display.html.use_mathjax", False)  # a class may be called $5


@dataclass(frozen=True)
class OwnImages(Dataset):
    """Describes own images as a `Dataset`, with `left_out`: a pair (name, reason) for each file that is not used."""

    left_out: tuple[tuple[str, str], ...] = ()


def load_images(source: str, image_size: int = 0, flip: bool = True, device: str = "cpu") -> Data:
    """Return the images in a folder, square and of one size, as a `Data` whose splits are the same at every call.
    Classes are named by the folders. Folders `train`, `val` and `test` above them are taken as the splits; a missing
    validation or test split is held back from training, class by class. A picture is used once: copies in a later split
    are left out, and all where classes differ. `count_unused_files` tells which are not used. Images are grey if all of
    them are. Training images are shifted by up to 1/16 and, with `flip` (unless left and right matter), mirrored.
    `image_size`: pixels a side; 0: as they are if all alike, square and small, otherwise at most 64. DataError says
    what is wrong with the images, and what to do.
    """
    folder, source, files = Path(source).expanduser(), pictures.printable_path(source), list_images(source)
    size, channels = pictures.choose_image_shape(files, source, image_size)
    used = files[files["reason"] == ""]
    need, free = len(used) * channels * size**2 / 1e9, psutil.virtual_memory().available / 1e9
    if need > free / 3:  # read, put together, and as tensors
        why = f"{len(used):,} images of {size}x{size} pixels take {need:.1f} GB, and {free:.1f} GB of memory are free"
        raise DataError(f"{source}: {why}: pass a smaller image_size, or fewer images")
    prepare = partial(prepare_image, height=size, width=size, channels=channels)
    files["pixels"] = pictures.apply_to_images(files, prepare, source, "reading")
    pictures.leave_out_duplicates(files)
    classes, left_out = _classes(files, source), files.loc[files["reason"] != "", ["file", "reason"]]
    parts = _three_splits(files[files["reason"] == ""])
    images = [np.stack(part["pixels"].tolist()) for part in parts]
    name, (mean, std) = pictures.printable_path(folder.resolve().name), _mean_and_std(images[0])
    unused = f"; {len(left_out)} files not used" * (len(left_out) > 0)
    about = OwnImages(
        name, f"folder {name}, every picture in one split only{unused}", (channels, size, size), len(classes),
        len(parts[1]), mean, std, size // 16, flip, tuple(classes), tuple(left_out.itertuples(index=False, name=None)),
    )  # fmt: skip
    labels = [part["class_name"].map(classes.index).to_numpy() for part in parts]
    pairs = zip((part.transpose(0, 3, 1, 2) for part in images), labels, strict=True)
    return Data(*(Split(*(torch.tensor(values, device=device) for values in pair), about) for pair in pairs))


def list_images(source: str) -> pd.DataFrame:
    """Return `pictures.list_files` of a folder of class folders; DataError if it is not one, or has too few images."""
    folder, source = Path(source).expanduser(), pictures.printable_path(source)
    if not folder.is_dir():
        raise DataError(f"images {source!r}: there is no folder {pictures.printable_path(folder.absolute())}{LAYOUT}")
    files = pictures.list_files(folder)
    _classes(files, source)
    return files


def count_unused_files(data: Data) -> pd.DataFrame:
    """Return a table by reason why own files are not used: files, how many, and which, some of their names."""
    return pictures.count_unused_files(pd.DataFrame(data.train.dataset.left_out, columns=["file", "reason"]))


def make_row_name(data: Data, drawn: bool = False) -> str:
    """Return own_<folder>_<checksum>, the name of own images in recipes and runs; `drawn` examples have another."""
    about = data.train.dataset
    digest = hashlib.sha256(repr((about.image_shape, about.flip, about.class_names)).encode())
    for split in (data.train, data.validation, data.test):
        digest.update(split.sha256().encode())
    plain = re.sub("[^a-z0-9]+", "_", about.title.lower()).strip("_") or "images"
    plain = plain[:MOST_LETTERS_OF_NAME].strip("_")
    plain = EXAMPLE_NAME if drawn else f"my_{plain}" if plain.startswith(EXAMPLE_NAME) else plain
    return f"own_{plain}_{digest.hexdigest()[:8]}"


def count_images(data: Data) -> pd.DataFrame:
    """Return a table of the number of own images: a row per split, a column per class and one for their sum."""
    classes = pd.Index(data.train.dataset.class_names, name="class")
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = [split.labels.bincount(minlength=len(classes)).tolist() for split in splits.values()]
    return pd.DataFrame(counts, splits, classes).assign(**{TOTAL_COLUMN: lambda table: table.sum(axis=1)})


def _classes(files: pd.DataFrame, source: str) -> list[str]:
    """Return the sorted class names; DataError if they cannot be written, or are too few, or have too few images."""
    used, unused = files[files["reason"] == ""], pictures.describe_unused_files(files)
    classes = sorted(set(used["class_name"]))
    categories = {name: {unicodedata.category(sign) for sign in name} for name in classes}
    if unwritable := [ascii(x) for x in classes if categories[x] & UNWRITABLE_UNICODE_CATEGORIES]:
        why = "signs that are not UTF-8, or line breaks and the like, in class names"
        raise DataError(f"{source}: {why} ({pictures.list_first_five(unwritable)}): rename these folders")
    if len(classes) < 2:
        only = f"only the class {classes[0]!r}" if classes else "no images in class folders"
        why = f"{source} has {only}: put the images of each class into a folder of its own, two at least"
        raise DataError(why + unused)
    if gone := sorted(set(files["split"].dropna()) - set(used["split"])):
        raise DataError(f"{source}, {gone[0]}: no image of its own is left: give it others, or remove it{unused}")
    counts = Counter(used.loc[used["split"] == "train", "class_name"])
    if unknown := [repr(name) for name in classes if not counts[name]]:
        known = ", ".join(map(repr, counts))
        raise DataError(f"{source}, train: no images of {pictures.list_first_five(unknown)}, but of {known}{unused}")
    fewest = 5 if used["split"].nunique() < 3 else 1  # so that every split has some
    if few := [f"{name!r} {counts[name]}" for name in classes if counts[name] < fewest]:
        why = f"too few images ({pictures.list_first_five(few)}): {fewest} per class are the least, hundreds are good"
        raise DataError(f"{source}, train: {why}{unused}")
    return classes


def _mean_and_std(images: np.ndarray) -> tuple[float, float]:
    """Return one mean and one standard deviation over all pixels and channels, scaled to 0..1."""
    parts = np.array_split(images.reshape(-1), images.size // 10**7 + 1)  # counting takes 8 bytes a pixel
    share = sum(np.bincount(part, minlength=256) for part in parts) / images.size
    value = np.arange(256) / 255
    mean = float(share @ value)
    return mean, float(share @ (value - mean) ** 2) ** 0.5 or 1.0


def _three_splits(files: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the files of each split; a missing validation or test split is taken from training, class by class."""
    files, splits = files.copy(), list(pictures.FOLDER_NAMES_OF_SPLIT)
    missing = [split for split in splits if split not in set(files["split"])]
    for label, (_, lines) in enumerate(files[files["split"] == "train"].groupby("class_name")):
        share = max(1, round(SHARE_HELD_BACK * len(lines)))
        shuffled = lines.index[torch.randperm(len(lines), generator=seeded_generator("own split", label)).numpy()]
        for number, split in enumerate(missing):
            files.loc[shuffled[number * share : (number + 1) * share], "split"] = split
    return [files[files["split"] == split] for split in splits]


def make_example_folder(folder: Path) -> Path:
    """Return `folder`, which holds ten class folders of drawn marks to try notebook 10 with; made if missing."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")  # and renamed at the end: whole or not at all
        names = [f"{down}_down_{right}_right" for down, right in embedded.mark_displacements("cifar10")]  # pixels
        for number, (image, label) in enumerate(zip(*embedded.draw_stand_ins("cifar10"), strict=True)):
            (unfinished / names[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(unfinished / names[label] / f"{number:05d}.png")
        unfinished.rename(folder)
    return folder
