"""Finds image files in a folder of class folders and reads them; every file that is not used has a reason."""

import hashlib
import os
import unicodedata
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from odnlib.data import DataError
from studies.predict import READABLE

LARGEST, SMALLEST = 64, 16  # pixels a side: larger images are scaled down unless `image_size` says otherwise
SPLIT_FOLDERS = {  # names that a split's folder may have, in any case
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
PICTURES = """.heic .heif .avif .jxl .svg .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef .srw .x3f
    .raw .3fr .erf .mrw .kdc .dcr .iiq .mef .mos .rwl"""  # that Pillow may lack
HIDDEN, OTHER = "hidden", "not an image by its ending"  # every other reason means that an image is lost
UNKNOWN, NO_ENDING, LINK = "image format that cannot be read", "no ending in the name", "folder behind a link"
OUTSIDE, NESTED, DAMAGED = "outside the class folders", "in a folder inside a class folder", "cannot be read"
LOST = (UNKNOWN, NO_ENDING, LINK, OUTSIDE, NESTED, DAMAGED)
MOST_LOST = 0.02  # of the images, or one
READERS, LARGE = 4, 2**24  # threads; pixels above which one image at a time is read


def some(problems: list[str], separator: str = ", ") -> str:
    """Return the first five problems as text, and how many more there are."""
    return separator.join(problems[:5]) + f" and {len(problems) - 5} more" * (len(problems) > 5)


def shown(path: Path | str) -> str:
    """Return a path as text that can be printed: bytes that are not UTF-8 as backslash and number."""
    return os.fsencode(path).decode(errors="backslashreplace")


def findings(files: pd.DataFrame) -> pd.DataFrame:
    """Return a line per reason for which files are not used: how many, and some of their names."""
    unused = files[files["reason"] != ""].groupby("reason")["file"]
    return unused.agg(files="count", which=lambda names: some(list(names)))


def told(files: pd.DataFrame, before: str = "; not used: ") -> str:
    """Return the findings as text, for error messages; empty if there are none."""
    text = "; ".join(f"{x.files} {x.Index} ({x.which})" for x in findings(files).itertuples())
    return before * bool(text) + text


def listed(folder: Path) -> pd.DataFrame:
    """Return a line per file: path, file (its name in the folder), split, class_name, and reason if it is not used.

    A folder with images is a class; classes may lie in folders of splits. Hidden folders, and links to folders inside a
    class, are not entered and have one line each.

    Raises:
        DataError: a folder cannot be entered or has no images, or many images would be left out.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{shown(error.filename)}: {error.strerror}: let it be read, or take it away") from None

    tops = [x for x in sorted(folder.iterdir()) if x.is_dir() and x.name[0] != "."]
    splits = {x: split for x in tops for split, names in SPLIT_FOLDERS.items() if x.name.casefold() in names}
    if all(_is_class(x) for x, split in splits.items() if split == "train"):
        splits = {}
    levels, lines = 2 if splits else 1, []  # folders around an image
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        place, around = Path(place), Path(place).relative_to(folder).parts
        links = {x for x in folders if len(around) >= levels and (place / x).is_symlink()}
        closed = {x for x in folders if x[0] == "."} | links
        folders[:] = set(folders) - closed
        split = (splits.get(folder / around[0]) if splits else "train") if around else None
        for name in (*names, *closed):
            reason = _reason(name, name in links, split, len(around) - levels)
            class_name = unicodedata.normalize("NFC", place.name)
            lines.append((place / name, shown((place / name).relative_to(folder)), split, class_name, reason))
    files = pd.DataFrame(lines, columns=["path", "file", "split", "class_name", "reason"]).sort_values("path")
    order = files["split"].map({split: number for number, split in enumerate(SPLIT_FOLDERS)}).fillna(len(SPLIT_FOLDERS))
    files = files.iloc[order.argsort(kind="stable")].reset_index(drop=True)
    refuse_many(files, shown(folder))
    used = files[files["reason"] == ""]
    if empty := [x for x, split in splits.items() if split != "train" and split not in set(used["split"])]:
        advice = "fill it, or remove it to have a share of train held back"
        raise DataError(f"{shown(empty[0])}: no images in it: {advice}{told(files)}")
    train = [x for x, split in splits.items() if split == "train"] or [folder]
    folders = [x for top in train for x in sorted(top.iterdir()) if x.is_dir() and x.name[0] != "."]
    if empty := [shown(x.relative_to(folder)) for x in folders if x not in {path.parent for path in used["path"]}]:
        why = f"no images in {some(empty)}: a folder there is a class; fill it or remove it"
        raise DataError(f"{shown(folder)}: {why}{told(files)}")
    return files


def _is_class(folder: Path) -> bool:
    """Whether a folder called like a split is a class: it has images in itself and none in folders."""
    first, second = (any(x.suffix.lower() in READABLE for x in folder.glob(pattern)) for pattern in ("*", "*/*"))
    return first and not second


def _reason(name: str, link: bool, split: str | None, deeper: int) -> str:
    """Return why a file is not used, or "" if it is; `deeper`: folders around it, less those that there should be."""
    ending = os.path.splitext(name)[1].lower()
    reasons = {
        HIDDEN: name[0] == ".",
        LINK: link,
        NO_ENDING: not ending and deeper >= 0,
        UNKNOWN: ending in PICTURES.split() and ending not in READABLE,
        OTHER: ending not in READABLE,
        OUTSIDE: split is None or deeper < 0,
        NESTED: deeper > 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def refuse_many(files: pd.DataFrame, source: str) -> None:
    """Raise DataError if more than one image, and more than `MOST_LOST` of them, would be left out."""
    lost = files["reason"].isin(LOST)
    if lost.sum() > max(1, MOST_LOST * (lost | (files["reason"] == "")).sum()):
        advice = "put them into the folder of their class, convert them to JPEG or PNG, repair them, or take them away"
        raise DataError(f"{source}: too many images would be left out: {told(files[lost], '')}: {advice}")


def shape(files: pd.DataFrame, source: str, wanted: int) -> tuple[int, int]:
    """Return (pixels a side, channels) to use for all images, judged by their headers; DataError for a bad size."""
    if wanted and not SMALLEST <= wanted <= 1024:
        raise DataError(f"image_size {wanted} is not 0 or a number of pixels from {SMALLEST} to 1024")
    headers = each(files, lambda image: (min(image.size), image.mode), source, "looking at")
    shorter = sorted(side for side, _ in headers)[len(headers) // 2]
    size = wanted or min(LARGEST, max(SMALLEST, shorter))
    return size, 1 if all(mode in ("1", "L", "LA") or mode[0] == "I" for _, mode in headers) else 3


def each(files: pd.DataFrame, do: Callable, source: str, doing: str) -> pd.Series:
    """Return `do` of every used image, opened; those that fail get the reason `DAMAGED`, and many are a DataError."""

    def tried(path: Path) -> tuple[object, str]:
        try:
            with Image.open(path) as image:
                large = image.width * image.height > LARGE
                return (one.submit(do, image).result() if large else do(image)), ""
        except Exception as error:  # PIL raises all kinds on damaged files
            return None, f" ({str(error).splitlines()[0] if str(error) else type(error).__name__})"

    used = files.index[files["reason"] == ""]
    with (
        warnings.catch_warnings(action="ignore"),  # Pillow's, of odd headers
        ThreadPoolExecutor(1) as one,  # has all large images: each thread keeps the memory that it has needed once
        ThreadPoolExecutor(READERS) as pool,
    ):
        done = pool.map(tried, files.loc[used, "path"])
        results, problems = zip(*tqdm(done, doing, len(used), leave=False, unit="image"), strict=True)
    files.loc[used, "reason"] = [DAMAGED if problem else "" for problem in problems]
    files.loc[used, "file"] += pd.Series(problems, used)
    refuse_many(files, source)
    return pd.Series(results, used, dtype=object)[files.loc[used, "reason"] == ""]


def use_once(files: pd.DataFrame) -> None:
    """Give a reason to images whose `pixels` are another's: to all if their classes differ, else to all but the first.

    The lines are in the order training, validation, test: no image of the test is one of the others.
    """
    used = files[files["reason"] == ""]
    same = used.groupby(used["pixels"].map(lambda pixels: hashlib.sha256(pixels).digest()))
    first, where = same["file"].transform("first"), same["split"].transform("first")
    reason = ("the same picture is in " + where + " already").where(same.cumcount() > 0, "")
    reason[same["class_name"].transform("nunique") > 1] = "the same picture is in two classes"
    files.loc[used.index, "reason"] = reason
    files.loc[used.index, "file"] += (" = " + first).where(first != used["file"], "")
