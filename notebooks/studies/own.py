"""Your own images as the three splits of a run, and what a search on them lets one choose from."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

from odnlib import embedded, metrics, models, plots, recipes
from odnlib.data import Arrays, Data, DataError, Dataset, Split, generator
from odnlib.files import processor, read_json, run_folders, write_csv
from odnlib.recipes import Recipe
from studies import pictures

HELD_BACK = 0.15  # of the images for validation, and as many for the test, where the folder has no such parts
FEWEST = 5  # images that a class needs, to be in every split


def load(source: str, image_size: int = 0, flip: bool = True, device: str = "cpu") -> Data:
    """The images at `source`, square and of one size, as splits that are the same at every call.

    Classes are the names of the folders. Folders `train`, `val` and `test` above them are taken as the splits that
    they name; what is missing of validation and test is held back from training, class by class. Images are grey where
    all of them are. Training images are shifted by up to an eighth and, with `flip`, mirrored.

    Args:
        source: a folder with one folder of images per class.
        image_size: pixels a side; 0: as they are if they are alike, square and small, otherwise at most 64.
        flip: false where left and right matter, as in writing.

    Raises:
        DataError: what is wrong with the images, and what to do.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f"images {source!r}: there is no folder {folder.absolute()}")
    found, name = pictures.listed(folder), folder.resolve().name
    classes = sorted({path.parent.name for paths in found.values() for path in paths})
    parts = {part: (paths, [classes.index(path.parent.name) for path in paths]) for part, paths in found.items()}
    _refuse(parts, classes, source)
    every = [image for images, _ in parts.values() for image in images]
    size, channels = pictures.shape(every, source, image_size)
    needed, free = len(every) * channels * size**2, psutil.virtual_memory().available
    if needed > free / 2:
        raise DataError(
            f"{source}: {len(every):,} images of {size}x{size} pixels take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} "
            "GB of memory are free: pass a smaller image_size, or fewer images"
        )
    arrays = {}
    for part, (images, labels) in parts.items():
        arrays[part] = pictures.pixels(images, size, channels, source), np.asarray(labels, dtype=np.int64)
    arrays = _with_all_splits(arrays)
    mean, std = _mean_and_std(arrays["train"][0])
    held_back, shape = len(arrays["validation"][1]), (channels, size, size)
    about = Dataset(name, f"folder {name}", shape, len(classes), held_back, mean, std, size // 8, flip, tuple(classes))
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
            more = f" and {len(few) - pictures.SAID} more" if len(few) > pictures.SAID else ""
            said = f"{', '.join(few[: pictures.SAID])}{more}"
            raise DataError(
                f"{source}, {part}: too few images ({said}): {fewest} per class are the least, hundreds are good"
            )


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


def front(recipe: Recipe, folder: Path, dataset: Dataset) -> pd.DataFrame:
    """What a finished search offers: its depths.csv, and latency_ms of one image on the CPU for every depth tried and
    for the whole network. Measured once, with fresh weights; kept in the run's folder as front.csv.
    """
    file = folder / "front.csv"
    if not file.exists():
        lines = pd.read_csv(folder / "depths.csv")
        whole = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        timed = sorted({*lines.dropna(subset="val_acc_pct")["depth"], recipe.last_depth})
        networks = {depth: whole.truncate(depth).to(memory_format=torch.channels_last) for depth in timed}
        lines["latency_ms"] = lines["depth"].map(metrics.latency_ms(networks, dataset.image_shape, batch=1))
        write_csv(file, lines.assign(threads=torch.get_num_threads(), processor=processor()))
    return pd.read_csv(file)


def recommended(offered: pd.DataFrame, result: dict) -> int:
    """The depth to take: the first that met the goal, or if none did, the one of the best validation accuracy."""
    return result["depth"] if result["met_goal"] else int(offered.loc[offered["val_acc_pct"].idxmax(), "depth"])


def recommendation(recipe: Recipe, offered: pd.DataFrame, result: dict, validation_images: int) -> str:
    """What to take, in words; `offered` as `front` gives it."""
    at, whole = offered.set_index("depth", drop=False).loc[recommended(offered, result)], offered.iloc[-1]
    n = validation_images + 4  # Agresti and Coull (1998): sensible for few images, and at 100 %
    p = (at["val_acc_pct"] / 100 * validation_images + 2) / n
    sure = 196 * (p * (1 - p) / n) ** 0.5
    has = "{:.1f} % on validation, {:.2f} MB, {:.0f} million multiply-accumulates, {:.1f} ms an image"
    has = has.format(*at[["val_acc_pct", "size_mb", "macs_m", "latency_ms"]])
    why = f"the shallowest that has your {recipe.goal_pct:g} %" if result["met_goal"] else "the most accurate one"
    said = [f"Take depth {at['depth']} of {whole['depth']}, {why}: {has}."]
    if at["depth"] != whole["depth"]:
        smaller, faster = 100 * (1 - at["size_mb"] / whole["size_mb"]), whole["latency_ms"] / at["latency_ms"]
        said.append(f"It is {smaller:.1f} % smaller and {faster:.1f} times as fast as depth {whole['depth']}.")
    if not result["met_goal"]:
        said.insert(0, f"No depth reached your {recipe.goal_pct:g} %.")
        said.append("More or larger images, a wider network or more epochs may reach it - or a lower target is right.")
    said.append(f"From {validation_images} validation images an accuracy is known to about {sure:.1f} points.")
    return " ".join(said)


def write(results_dir: Path, profile: str) -> None:
    """Figures of every search on somebody's own images: what it offers to choose from, and its history."""
    for folder in run_folders(results_dir, profile, "odn"):
        if (folder / "front.csv").exists():
            run, offered, to = (
                recipes.read(folder),
                pd.read_csv(folder / "front.csv"),
                results_dir / profile / "figures",
            )
            depth = recommended(offered, read_json(folder / "result.json"))
            plots.save(plots.depth_choice(offered, run, recommended=depth), to / f"{run.name}-choice.png")
            plots.save(plots.history(pd.read_csv(folder / "epochs.csv"), run), to / f"{run.name}-history.png")
