"""Finds image files in a folder of class folders and reads them as bytes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from odnlib.data import DataError

LARGEST, SMALLEST = 64, 16  # pixels a side: larger images are scaled down unless `image_size` says otherwise
SPLIT_FOLDERS = {
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}  # names that a split's folder may have
PICTURES = {".heic", ".heif", ".avif", ".jxl", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng"}  # that Pillow may lack


def some(problems: list[str], separator: str = ", ") -> str:
    """Return the first five problems as text, and how many more there are."""
    return separator.join(problems[:5]) + f" and {len(problems) - 5} more" * (len(problems) > 5)


def listed(folder: Path) -> dict[str, list[Path]]:
    """Return split -> its image files, sorted. Every folder with images in it is a class.

    Raises:
        DataError: images would be left out: outside class folders, or in a format that cannot be read.
    """
    known = set(Image.registered_extensions())

    def images(place: Path, pattern: str, kinds: set[str] = known) -> list[Path]:
        found = sorted(path for path in place.glob(pattern) if path.suffix.lower() in kinds)
        return [path for path in found if not any(part[0] == "." for part in path.relative_to(place).parts)]

    if unknown := images(folder, "**/*", PICTURES - known):
        where = f"{len(unknown)} images cannot be read, e.g. {unknown[0].relative_to(folder)}"
        raise DataError(f"{folder}: {where}: convert them to JPEG or PNG, or take them away")
    top = folder / "train" if (folder / "train").is_dir() else folder
    found = {"train": images(top, "*/*")}
    for split, names in SPLIT_FOLDERS.items() if top != folder else ():
        found[split] = [image for name in names for image in images(folder / name, "*/*")]
    if elsewhere := sorted(set(images(folder, "**/*")).difference(*found.values())):
        where = f"{len(elsewhere)} images lie elsewhere than in class folders, e.g. {elsewhere[0].relative_to(folder)}"
        raise DataError(f"{folder}: {where}: put them into the folder of their class, or take them away")
    unfilled = [folder / name for split, names in SPLIT_FOLDERS.items() if found.get(split) == [] for name in names]
    if empty := [place for place in unfilled if place.is_dir()]:
        raise DataError(f"{empty[0]}: no images in it: fill it, or remove it to have a share of train held back")
    filled = {path.parent for path in found["train"]}
    if empty := sorted(x.name for x in top.iterdir() if x.is_dir() and x.name[0] != "." and x not in filled):
        raise DataError(f"{top}: no images in {some(empty)}: a folder there is a class; fill it or remove it")
    return {split: paths for split, paths in found.items() if paths or split == "train"}


def shape(images: list[Path], source: str, wanted: int) -> tuple[int, int]:
    """Return (pixels a side, channels) to use for all images, judged by their headers; DataError for a bad size."""
    if wanted and not SMALLEST <= wanted <= 1024:
        raise DataError(f"image_size {wanted} is not 0 or a number of pixels from {SMALLEST} to 1024")
    headers = each(images, lambda image: (min(image.size), image.mode), source, "looking at")
    shorter = sorted(side for side, _ in headers)[len(headers) // 2]
    size = wanted or min(LARGEST, max(SMALLEST, shorter))
    return size, 1 if all(mode in ("1", "L", "LA") for _, mode in headers) else 3


def pixels(images: list[Path], size: int, channels: int, source: str) -> np.ndarray:
    """Return all images as (N, channels, size, size) uint8: the shorter side scaled to size, the middle cut out."""

    def one(image: Image.Image) -> np.ndarray:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:  # on white, as pages show it
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        fitted = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size))
        return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)

    return np.stack(each(images, one, source, "reading"))


def each(images: list[Path], do: Callable, source: str, doing: str) -> list:
    """Return the results of `do` on each opened image, computed in parallel; DataError names the files that fail."""

    def tried(path: Path) -> tuple[object, str]:
        try:
            return do(Image.open(path)), ""
        except Exception as error:  # PIL raises all kinds on damaged files
            name = path.relative_to(source) if Path(source) in path.parents else path
            return None, f"{name} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"

    with ThreadPoolExecutor() as pool:
        done = list(tqdm(pool.map(tried, images), doing, len(images), leave=False, unit="image"))
    if failed := [problem for _, problem in done if problem]:
        raise DataError(f"{source}: cannot be read: {some(failed, '; ')}: repair or remove them")
    return [result for result, _ in done]
