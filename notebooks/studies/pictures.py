"""Pictures as people have them, a folder of class folders: found, and read as bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from odnlib.data import DataError

LARGEST, SMALLEST = 64, 16  # pixels a side: larger images are scaled down unless `image_size` says otherwise
TEST_PARTS, VALIDATION_PARTS = ("test",), ("val", "valid", "validation")
PICTURES = {".heic", ".heif", ".avif", ".jxl", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng"}  # that Pillow may lack
SAID = 5  # problems that a message lists


def listed(folder: Path) -> dict[str, list[Path]]:
    """part -> its images, in order. A class is a folder that has images in it.

    Raises:
        DataError: where images would be left out: elsewhere than in class folders, or of a kind that cannot be read.
    """
    known = set(Image.registered_extensions())

    def images(place: Path, pattern: str, kinds: set[str] = known) -> list[Path]:
        hidden = len(place.parts)
        found = (path for path in place.glob(pattern) if path.suffix.lower() in kinds)
        return sorted(path for path in found if not any(part.startswith(".") for part in path.parts[hidden:]))

    if unknown := images(folder, "**/*", PICTURES - known):
        where = f"{len(unknown)} images cannot be read, e.g. {unknown[0].relative_to(folder)}"
        raise DataError(f"{folder}: {where}: convert them to JPEG or PNG, or take them away")

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


def shape(images: list, source: str, wanted: int) -> tuple[int, int]:
    """Pixels a side and channels for all images, from their headers."""
    if wanted and not SMALLEST <= wanted <= 1024:
        raise DataError(f"image_size {wanted} is not 0 or a number of pixels from {SMALLEST} to 1024")
    headers = each(images, lambda image: (Image.open(image).size, Image.open(image).mode), source, "looking at")
    sizes = Counter(size for size, _ in headers)
    shorter = sorted(min(size) for size in sizes.elements())[len(headers) // 2]
    size = wanted or min(LARGEST, max(SMALLEST, shorter))
    return size, 1 if all(mode in ("1", "L", "LA") for _, mode in headers) else 3


def pixels(images: list, size: int, channels: int, source: str) -> np.ndarray:
    """(N, channels, size, size) uint8: scaled to the shorter side, the middle cut out."""

    def one(image: Path) -> np.ndarray:
        loaded = Image.open(image)
        if loaded.mode.startswith(("I", "F")):
            raise ValueError(f"mode {loaded.mode}, more than 8 bits a channel")
        upright = ImageOps.exif_transpose(loaded)
        if upright.has_transparency_data:  # on white, as pages show it
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        upright = upright.convert("L" if channels == 1 else "RGB")
        fitted = upright if upright.size == (size, size) else ImageOps.fit(upright, (size, size))
        return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)

    return np.stack(each(images, one, source, "reading"))


def each(images: list, do: Callable, source: str, doing: str) -> list:
    """`do` for all images, side by side; DataError that names those where it fails."""

    def tried(image: Path) -> tuple[object, str]:
        try:
            return do(image), ""
        except Exception as error:  # PIL raises all kinds on damaged files
            name = image.relative_to(source) if Path(source) in image.parents else image
            return None, f"{name} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"

    with ThreadPoolExecutor() as pool:
        done = list(tqdm(pool.map(tried, images), doing, len(images), leave=False, unit="image"))
    if failed := [problem for _, problem in done if problem]:
        more = f" and {len(failed) - SAID} more" if len(failed) > SAID else ""
        raise DataError(f"{source}: cannot be read: {'; '.join(failed[:SAID])}{more}: repair or remove them")
    return [result for result, _ in done]
