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

from odnlib import embedded, recipes
from odnlib.data import Data, DataError, Dataset, Split, seeded_generator
from odnlib.files import find_finished_runs
from odnlib.presets import EXAMPLE_FOLDER
from studies import pictures, plots
from studies.predict import prepared

HELD_BACK = 0.15  # of the images for validation, and as many for the test, where the folder has no such parts
ALL = "all / classes"  # no folder's name, and so no class's, has a slash
LONGEST = 40  # characters of a folder's name that name its runs
UNWRITABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's controls, what is left of bytes that are no text, and line breaks
pd.set_option("display.html.use_mathjax", False)  # a class may be called $5


@dataclass(frozen=True)
class Photographs(Dataset):
    """Describes own images; has beside the rest a pair (name, reason) for each file in the folder that is not used."""

    left_out: tuple[tuple[str, str], ...] = ()


def load(source: str, image_size: int = 0, flip: bool = True, device: str = "cpu") -> Data:
    """Load the images at `source`, square and of one size, into splits that are the same at every call.

    Classes are named by the folders. Folders `train`, `val` and `test` above them are taken as the splits; a missing
    validation or test split is held back from training, class by class. A picture is used once: copies in a later split
    are left out, and all where classes differ. `findings` tells which files are not used. Images are grey if all of
    them are. Training images are shifted by up to an eighth and, with `flip`, mirrored.

    Args:
        source: a folder with one folder of images per class.
        image_size: pixels a side; 0: as they are if all alike, square and small, otherwise at most 64.
        flip: false where left and right matter, as in writing.

    Raises:
        DataError: what is wrong with the images, and what to do.
    """
    folder, source = Path(source).expanduser(), pictures.shown(source)
    if not folder.is_dir():
        raise DataError(f"images {source!r}: there is no folder {pictures.shown(folder.absolute())}")
    files = pictures.listed(folder)
    _classes(files, source)
    size, channels = pictures.shape(files, source, image_size)
    used = files[files["reason"] == ""]
    need, free = len(used) * channels * size**2 / 1e9, psutil.virtual_memory().available / 1e9
    if need > free / 3:  # read, put together, and as tensors
        why = f"{len(used):,} images of {size}x{size} pixels take {need:.1f} GB, and {free:.1f} GB of memory are free"
        raise DataError(f"{source}: {why}: pass a smaller image_size, or fewer images")
    prepare = partial(prepared, height=size, width=size, channels=channels)
    files["pixels"] = pictures.each(files, prepare, source, "reading")
    pictures.use_once(files)
    classes, left_out = _classes(files, source), files.loc[files["reason"] != "", ["file", "reason"]]
    parts = _three_splits(files[files["reason"] == ""])
    images = [np.stack(part["pixels"].tolist()) for part in parts]
    name, unused = pictures.shown(folder.resolve().name), f"; {len(left_out)} files not used" * (len(left_out) > 0)
    mean, std = _mean_and_std(images[0])
    about = Photographs(
        name, f"folder {name}, every picture in one split only{unused}", (channels, size, size), len(classes),
        len(parts[1]), mean, std, size // 8, flip, tuple(classes), tuple(left_out.itertuples(index=False, name=None)),
    )  # fmt: skip
    labels = [part["class_name"].map(classes.index).to_numpy() for part in parts]
    pairs = zip((part.transpose(0, 3, 1, 2) for part in images), labels, strict=True)
    return Data(*(Split(*(torch.tensor(values, device=device) for values in pair), about) for pair in pairs))


def findings(data: Data) -> pd.DataFrame:
    """Return a table, a row per reason why files are not used: `files`, how many, and `which`, some of their names."""
    return pictures.findings(pd.DataFrame(data.train.dataset.left_out, columns=["file", "reason"]))


def row(data: Data, drawn: bool = False) -> str:
    """Return the name under which runs on these images are stored, with a checksum; `drawn` ones have their own."""
    about = data.train.dataset
    digest = hashlib.sha256(repr((about.image_shape, about.flip, about.class_names)).encode())
    for split in (data.train, data.validation, data.test):
        digest.update(split.sha256().encode())
    plain = re.sub("[^a-z0-9]+", "_", about.title.lower()).strip("_") or "images"
    plain = plain[:LONGEST].strip("_")
    plain = EXAMPLE_FOLDER if drawn else f"my_{plain}" if plain.startswith(EXAMPLE_FOLDER) else plain
    return f"own_{plain}_{digest.hexdigest()[:8]}"


def summary(data: Data) -> pd.DataFrame:
    """Return a table of the number of images per split (lines) and class (columns), with their sum."""
    classes = pd.Index(data.train.dataset.class_names, name="class")
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = [split.labels.bincount(minlength=len(classes)).tolist() for split in splits.values()]
    return pd.DataFrame(counts, splits, classes).assign(**{ALL: lambda table: table.sum(axis=1)})


def _classes(files: pd.DataFrame, source: str) -> list[str]:
    """Return the sorted class names; DataError if they cannot be written, or are too few, or have too few images."""
    used, unused = files[files["reason"] == ""], pictures.told(files)
    classes = sorted(set(used["class_name"]))
    if unwritable := [x for x in classes if any(unicodedata.category(sign) in UNWRITABLE for sign in x)]:
        why = "signs that are not UTF-8, or line breaks and the like, in class names"
        raise DataError(f"{source}: {why} ({pictures.some(list(map(ascii, unwritable)))}): rename these folders")
    if len(classes) < 2:
        only = f"only the class {classes[0]!r}" if classes else "no images in class folders"
        why = f"{source} has {only}: put the images of each class into a folder of its own, two at least"
        raise DataError(why + unused)
    if gone := sorted(set(files["split"].dropna()) - set(used["split"])):
        raise DataError(f"{source}, {gone[0]}: no image of its own is left: give it others, or remove it{unused}")
    counts = Counter(used.loc[used["split"] == "train", "class_name"])
    if unknown := [repr(name) for name in classes if not counts[name]]:
        known = ", ".join(map(repr, counts))
        raise DataError(f"{source}, train: no images of {pictures.some(unknown)}, but of {known}{unused}")
    fewest = 5 if used["split"].nunique() < 3 else 1  # so that every split has some
    if few := [f"{name!r} {counts[name]}" for name in classes if counts[name] < fewest]:
        why = f"too few images ({pictures.some(few)}): {fewest} per class are the least, hundreds are good"
        raise DataError(f"{source}, train: {why}{unused}")
    return classes


def _mean_and_std(images: np.ndarray) -> tuple[float, float]:
    """Return one mean and one standard deviation over all pixels and channels, scaled to 0..1."""
    mean = square = 0.0
    for part in np.array_split(images.reshape(-1), images.size // 10**7 + 1):
        scaled = part.astype(np.float64) / 255
        mean, square = mean + float(scaled.sum()) / images.size, square + float((scaled**2).sum()) / images.size
    return mean, max(square - mean**2, 0.0) ** 0.5 or 1.0


def _three_splits(files: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the lines of each split; a missing validation or test split is taken from training, class by class."""
    files, missing = files.copy(), [split for split in pictures.SPLIT_FOLDERS if split not in set(files["split"])]
    for label, (_, lines) in enumerate(files[files["split"] == "train"].groupby("class_name")):
        share = max(1, round(HELD_BACK * len(lines)))
        shuffled = lines.index[torch.randperm(len(lines), generator=seeded_generator("own split", label)).numpy()]
        for number, split in enumerate(missing):
            files.loc[shuffled[number * share : (number + 1) * share], "split"] = split
    return [files[files["split"] == split] for split in pictures.SPLIT_FOLDERS]


def example(folder: Path) -> Path:
    """Return a folder of class folders to try this with, ten of drawn marks; made if missing."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")  # and renamed at the end: whole or not at all
        names = [f"{down}_down_{right}_right" for down, right in embedded.mark_displacements("cifar10")]  # pixels
        for number, (image, label) in enumerate(zip(*embedded.draw_stand_ins("cifar10"), strict=True)):
            (unfinished / names[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(unfinished / names[label] / f"{number:05d}.png")
        unfinished.rename(folder)
    return folder


def write(results_dir: Path, profile: str) -> None:
    """Write two figures for every search for a depth alone, as was made for own images before there was the ladder: the
    choice, and the training history.
    """
    for folder in find_finished_runs(results_dir, profile, "odn"):
        if (folder / "front.csv").exists():
            run, offered = recipes.read_run(folder), pd.read_csv(folder / "front.csv")
            figures = folder.parents[1] / "figures"
            best = int(offered.loc[offered["val_acc_pct"].idxmax(), "depth"])
            choice = plots.depth_choice(offered, run, recommended=run.depth if run.met_goal else best)
            plots.save(choice, figures / f"{run.name}-choice.png")
            plots.save(plots.history(pd.read_csv(folder / "epochs.csv"), run), figures / f"{run.name}-history.png")
