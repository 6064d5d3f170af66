"""Notebook 10: your own images as training, validation and test splits, and the depth recommended for them."""

import hashlib
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

from odnlib import embedded, recipes
from odnlib.data import Data, DataError, Dataset, Split, generator
from odnlib.files import processor, run_folders, write_csv
from odnlib.presets import EXAMPLE
from odnlib.recipes import Recipe
from studies import latency, pictures, plots

HELD_BACK = 0.15  # of the images for validation, and as many for the test, where the folder has no such parts


def load(source: str, image_size: int = 0, flip: bool = True, device: str = "cpu") -> Data:
    """Load the images at `source`, square and of one size, into splits that are the same at every call.

    Classes are named by the folders. Folders `train`, `val` and `test` above them are taken as the splits; a missing
    validation or test split is held back from training, class by class. Images are grey if all of them are. Training
    images are shifted by up to an eighth and, with `flip`, mirrored.

    Args:
        source: a folder with one folder of images per class.
        image_size: pixels a side; 0: as they are if all alike, square and small, otherwise at most 64.
        flip: false where left and right matter, as in writing.

    Raises:
        DataError: what is wrong with the images, and what to do.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f"images {source!r}: there is no folder {folder.absolute()}")
    listed, name = pictures.listed(folder), folder.resolve().name
    classes, splits = _classes(listed, source), _three_splits(listed)
    every = [path for paths in splits.values() for path in paths]
    size, channels = pictures.shape(every, source, image_size)
    need, free = len(every) * channels * size**2 / 1e9, psutil.virtual_memory().available / 1e9
    if need > free / 2:
        why = f"{len(every):,} images of {size}x{size} pixels take {need:.1f} GB, and {free:.1f} GB of memory are free"
        raise DataError(f"{source}: {why}: pass a smaller image_size, or fewer images")
    pixels, labels = pictures.pixels(every, size, channels, source), [classes.index(path.parent.name) for path in every]
    counts, shape = [len(paths) for paths in splits.values()], (channels, size, size)
    mean, std = _mean_and_std(pixels[: counts[0]])
    about = Dataset(name, f"folder {name}", shape, len(classes), counts[1], mean, std, size // 8, flip, tuple(classes))
    parts = (torch.tensor(values, device=device).split(counts) for values in (pixels, labels))
    return Data(*(Split(*part, about) for part in zip(*parts, strict=True)))


def row(data: Data, drawn: bool = False) -> str:
    """Return the name under which runs on these images are stored, with a checksum; `drawn` ones have their own."""
    about = data.train.dataset
    digest = hashlib.sha256(repr((about.image_shape, about.flip, about.class_names)).encode())
    for split in (data.train, data.validation, data.test):
        digest.update(split.sha256().encode())
    plain = re.sub("[^a-z0-9]+", "_", about.title.lower()).strip("_") or "images"
    plain = EXAMPLE if drawn else f"my_{plain}" if plain.startswith(EXAMPLE) else plain
    return f"own_{plain}_{digest.hexdigest()[:8]}"


def summary(data: Data) -> pd.DataFrame:
    """Return a table of the number of images per split (lines) and class (columns), with their sum."""
    classes = pd.Index(data.train.dataset.class_names, name="class")
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = [split.labels.bincount(minlength=len(classes)).tolist() for split in splits.values()]
    return pd.DataFrame(counts, splits, classes).assign(all=lambda table: table.sum(axis=1))


def _classes(listed: dict[str, list[Path]], source: str) -> list[str]:
    """Return the sorted class names; DataError if there are fewer than two, or too few images of one."""
    classes = sorted({path.parent.name for paths in listed.values() for path in paths})
    if len(classes) < 2:
        only = f"only the class {classes[0]!r}" if classes else "no images in class folders"
        raise DataError(f"{source} has {only}: put the images of each class into a folder of its own, two at least")
    fewest = 5 if len(listed) < 3 else 1  # so that every split has some
    counts = Counter(path.parent.name for path in listed["train"])
    if few := [f"{name!r} {counts[name]}" for name in classes if counts[name] < fewest]:
        why = f"too few images ({pictures.some(few)}): {fewest} per class are the least, hundreds are good"
        raise DataError(f"{source}, train: {why}")
    return classes


def _mean_and_std(images: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels, scaled to 0..1; in parts, to save memory."""
    mean = square = 0.0
    for part in np.array_split(images.reshape(-1), images.size // 10**7 + 1):
        scaled = part.astype(np.float64) / 255
        mean, square = mean + float(scaled.sum()) / images.size, square + float((scaled**2).sum()) / images.size
    return mean, max(square - mean**2, 0.0) ** 0.5 or 1.0


def _three_splits(listed: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Return split -> images, sorted; a missing validation or test split is taken from training, class by class."""
    missing = [split for split in ("validation", "test") if split not in listed]
    splits = {"train": [], "validation": [], "test": []} | listed | {"train": []}
    for label, (_, paths) in enumerate(groupby(listed["train"], lambda path: path.parent)):
        paths = list(paths)
        share = max(1, round(HELD_BACK * len(paths)))
        shuffled = [paths[i] for i in torch.randperm(len(paths), generator=generator("own split", label))]
        for split in missing:
            splits[split] += shuffled[:share]
            shuffled = shuffled[share:]
        splits["train"] += shuffled
    return {split: sorted(paths) for split, paths in splits.items()}


def example(folder: Path) -> Path:
    """Return a folder of class folders to try this with, ten of drawn marks; made if missing."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")  # and renamed at the end: whole or not at all
        names = [f"{down}_down_{right}_right" for down, right in embedded.places("cifar10")]  # pixels
        for number, (image, label) in enumerate(zip(*embedded.stand_ins("cifar10"), strict=True)):
            (unfinished / names[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(unfinished / names[label] / f"{number:05d}.png")
        unfinished.rename(folder)
    return folder


def front(recipe: Recipe, folder: Path, dataset: Dataset) -> pd.DataFrame:
    """Return depths.csv of a finished search with latency_ms, of one image on the CPU, for all depths tried and the
    full depth. Measured once and stored in the run's folder as front.csv.
    """
    file = folder / "front.csv"
    if not file.exists():
        lines = pd.read_csv(folder / "depths.csv")
        timed = sorted({*lines.dropna(subset="val_acc_pct")["depth"], recipe.last_depth})
        lines["latency_ms"] = lines["depth"].map(latency.milliseconds(recipe, dataset, timed, batch=1))
        write_csv(file, lines.assign(threads=torch.get_num_threads(), processor=processor()))
    return pd.read_csv(file)


def recommended(offered: pd.DataFrame, result: dict) -> int:
    """Return the depth to use: the first that met the goal, otherwise the one most accurate on validation."""
    return result["depth"] if result["met_goal"] else int(offered.loc[offered["val_acc_pct"].idxmax(), "depth"])


def recommendation(recipe: Recipe, offered: pd.DataFrame, result: dict, validation_images: int) -> str:
    """Return the recommended depth in sentences; `offered` is the table of `front`."""
    take, whole = offered.set_index("depth", drop=False).loc[recommended(offered, result)], offered.iloc[-1]
    goal, met = f"your {recipe.goal_pct:g} %", result["met_goal"]
    text = "" if met else f"No depth reached {goal}. "
    text += f"Take depth {take.depth} of {whole.depth}, "
    text += f"the shallowest that has {goal}: " if met else "the most accurate one: "
    text += f"{take.val_acc_pct:.1f} % on validation, {take.size_mb:.2f} MB, {take.macs_m:.0f} million "
    text += f"multiply-accumulates, {take.latency_ms:.1f} ms an image."
    if take.depth != whole.depth:
        smaller_pct, times = 100 * (1 - take.size_mb / whole.size_mb), whole.latency_ms / take.latency_ms
        text += f" It is {smaller_pct:.1f} % smaller and {times:.1f} times as fast as depth {whole.depth}."
    if not met:
        text += " More or larger images, a wider network or more epochs may reach it - or a lower target is right."
    n = validation_images + 4  # Agresti and Coull (1998): sensible for few images, and at 100 %
    p = (take.val_acc_pct / 100 * validation_images + 2) / n
    points = 196 * (p * (1 - p) / n) ** 0.5
    return f"{text} From {validation_images} validation images an accuracy is known to about {points:.1f} points."


def write(results_dir: Path, profile: str) -> None:
    """Write two figures for every search on own images in a profile: the choice of depth, and its training history."""
    for folder in run_folders(results_dir, profile, "odn"):
        if (folder / "front.csv").exists():
            run, offered = recipes.read_run(folder), pd.read_csv(folder / "front.csv")
            figures = folder.parents[1] / "figures"
            choice = plots.depth_choice(offered, run, recommended=recommended(offered, vars(run)))
            plots.save(choice, figures / f"{run.name}-choice.png")
            plots.save(plots.history(pd.read_csv(folder / "epochs.csv"), run), figures / f"{run.name}-history.png")
