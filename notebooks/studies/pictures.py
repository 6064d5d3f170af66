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
from tqdm import tqdm

from odnlib.data import DataError
from odnlib.progress import open_progress_text
from studies.predict import READABLE_ENDINGS

LARGEST_SIDE, SMALLEST_SIDE = 64, 16  # pixels: larger images are scaled down unless `image_size` says otherwise
FOLDER_NAMES_OF_SPLIT = {  # in any case
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
IMAGE_ENDINGS = """.heic .heif .avif .jxl .svg .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef .srw
    .x3f .raw .3fr .erf .mrw .kdc .dcr .iiq .mef .mos .rwl"""  # that Pillow may lack
REASON_HIDDEN, REASON_NO_IMAGE, REASON_DAMAGED = "hidden", "not an image by its ending", "cannot be read"
REASON_NO_CLASS = "outside the class folders"
LARGEST_SHARE_LOST = 0.02  # of the images, or one
READER_THREADS, LARGE_IMAGE_PIXELS = 4, 2**24  # of images with more pixels one at a time is read


def list_first_five(problems: list[str]) -> str:
    """Return the first five texts of a list, joined by commas, and how many more there are."""
    return ", ".join(problems[:5]) + f" and {len(problems) - 5} more" * (len(problems) > 5)


def printable_path(path: Path | str) -> str:
    """Return a path as text that can be printed: bytes that are not UTF-8 as backslash and number."""
    return os.fsencode(path).decode(errors="backslashreplace")


def count_unused_files(files: pd.DataFrame) -> pd.DataFrame:
    """Return a table by reason in `files` ("": used): `files`, how many have it, and `which`, five of their names."""
    unused = files[files["reason"] != ""].groupby("reason")["file"]
    return unused.agg(files="count", which=lambda names: list_first_five(list(names)))


def describe_unused_files(files: pd.DataFrame, before: str = "; not used: ") -> str:
    """Return `count_unused_files` as text for error messages, after the text `before`; empty if all files are used."""
    text = "; ".join(f"{x.files} {x.Index} ({x.which})" for x in count_unused_files(files).itertuples())
    return before * bool(text) + text


def list_files(folder: Path) -> pd.DataFrame:
    """Return a table of all files in a folder of class folders, training, validation, then test: path, file (its name),
    split (or None), class_name, and reason, why it is not used ("": it is). A folder with images is a class; classes
    may lie in folders of splits. Hidden folders, and links to folders inside a class, are not entered and have one row
    each. DataError: a folder cannot be entered or has no images, or many images would be left out.
    """

    def refuse(error: OSError) -> None:
        why = f"{error.strerror}: let it be read, or take it away"
        raise DataError(f"{printable_path(error.filename)}: {why}") from None

    tops = [x for x in sorted(folder.iterdir()) if x.is_dir() and x.name[0] != "."]
    splits = {x: split for x in tops for split, names in FOLDER_NAMES_OF_SPLIT.items() if x.name.casefold() in names}
    if all(_is_class(x) for x, split in splits.items() if split == "train"):
        splits = {}
    levels, rows = 2 if splits else 1, []  # folders around an image
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        place, around = Path(place), Path(place).relative_to(folder).parts
        links = {x for x in folders if len(around) >= levels and (place / x).is_symlink()}
        closed = {x for x in folders if x[0] == "."} | links
        folders[:] = set(folders) - closed
        split = (splits.get(folder / around[0]) if splits else "train") if around else None
        class_name = unicodedata.normalize("NFC", place.name)
        for name in (*names, *closed):
            reason = _reason(name, name in links, split, len(around) - levels)
            file = printable_path((place / name).relative_to(folder))
            rows.append((place / name, file, split, class_name, reason))
    files = pd.DataFrame(rows, columns=["path", "file", "split", "class_name", "reason"]).sort_values("path")
    order = pd.Categorical(files["split"], FOLDER_NAMES_OF_SPLIT).codes % 9  # without a split, -1: the last
    files = files.iloc[order.argsort(kind="stable")].reset_index(drop=True)
    refuse_many_lost_images(files, printable_path(folder))
    used, unused = files[files["reason"] == ""], describe_unused_files(files)
    if empty := [x for x, split in splits.items() if split != "train" and split not in set(used["split"])]:
        advice = "fill it, or remove it to have a share of train held back"
        raise DataError(f"{printable_path(empty[0])}: no images in it: {advice}{unused}")
    train = [x for x, split in splits.items() if split == "train"] or [folder]
    folders = {x for top in train for x in top.iterdir() if x.is_dir() and x.name[0] != "."}
    if empty := [printable_path(x.relative_to(folder)) for x in sorted(folders - {x.parent for x in used["path"]})]:
        why = f"no images in {list_first_five(empty)}: a folder there is a class; fill it or remove it"
        raise DataError(f"{printable_path(folder)}: {why}{unused}")
    return files


def _is_class(folder: Path) -> bool:
    """Whether a folder called like a split is a class: it has images in itself and none in folders."""
    first, second = (any(x.suffix.lower() in READABLE_ENDINGS for x in folder.glob(y)) for y in ("*", "*/*"))
    return first and not second


def _reason(name: str, link: bool, split: str | None, deeper: int) -> str:
    """Return why a file is not used, or "" if it is; `deeper`: folders around it, less those that there should be."""
    ending = os.path.splitext(name)[1].lower()
    reasons = {
        REASON_HIDDEN: name[0] == ".",
        "folder behind a link": link,
        "no ending in the name": not ending and deeper >= 0,
        "image format that cannot be read": ending in IMAGE_ENDINGS.split() and ending not in READABLE_ENDINGS,
        REASON_NO_IMAGE: ending not in READABLE_ENDINGS,
        REASON_NO_CLASS: split is None or deeper < 0,
        "in a folder inside a class folder": deeper > 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def refuse_many_lost_images(files: pd.DataFrame, source: str) -> None:
    """Raise DataError if more than one image, and more than `LARGEST_SHARE_LOST` of all in `list_files`, would be left
    out; `source` names the folder. Files that are hidden or no images by their endings do not count.
    """
    used, lost = files["reason"] == "", ~files["reason"].isin(["", REASON_HIDDEN, REASON_NO_IMAGE])
    if not used.any() and (files.loc[lost, "reason"] == REASON_NO_CLASS).any():
        wanted = (
            f"expected {source}/CLASS/image.png, two classes at least (or name the folder above, if this is a class)"
        )
        raise DataError(f"{source}: {lost.sum()} images and no class folders: {wanted}")
    if lost.sum() > max(1, LARGEST_SHARE_LOST * (lost | used).sum()):
        advice = "put them into the folder of their class, convert them to JPEG or PNG, repair them, or take them away"
        unused = describe_unused_files(files[lost], "")
        raise DataError(f"{source}: too many images would be left out: {unused}: {advice}")


def choose_image_shape(files: pd.DataFrame, source: str, wanted: int) -> tuple[int, int]:
    """Return (pixels a side, channels: 1 or 3) for all images of `list_files`, judged by their headers. `wanted` are
    the pixels; 0: the median of the shorter sides, within limits. DataError if it is out of range.
    """
    if wanted and not SMALLEST_SIDE <= wanted <= 1024:
        raise DataError(f"image_size {wanted} is not 0 or a number of pixels from {SMALLEST_SIDE} to 1024")
    headers = apply_to_images(files, lambda image: (min(image.size), image.mode), source, "looking at")
    shorter = sorted(side for side, _ in headers)[len(headers) // 2]
    size = wanted or min(LARGEST_SIDE, max(SMALLEST_SIDE, shorter))
    return size, 1 if all(mode in ("1", "L", "LA") or mode[0] == "I" for _, mode in headers) else 3


def apply_to_images(files: pd.DataFrame, do: Callable, source: str, doing: str) -> pd.Series:
    """Return what `do` gives for each used image of `list_files`, opened by Pillow, by the index of `files`. Images
    that cannot be read get a reason there; DataError if they are many. `doing` labels the progress bar.
    """

    def tried(path: Path) -> tuple[object, str]:
        try:
            with Image.open(path) as image:
                large = image.width * image.height > LARGE_IMAGE_PIXELS
                return (one.submit(do, image).result() if large else do(image)), ""
        except Exception as error:  # PIL raises all kinds on damaged files
            return None, f" ({str(error).splitlines()[0] if str(error) else type(error).__name__})"

    used = files.index[files["reason"] == ""]
    with (
        warnings.catch_warnings(action="ignore"),  # Pillow's, of odd headers
        ThreadPoolExecutor(1) as one,  # has all large images: each thread keeps the memory that it has needed once
        ThreadPoolExecutor(READER_THREADS) as pool,
    ):
        done = pool.map(tried, files.loc[used, "path"])
        shown = tqdm(done, doing, len(used), leave=False, unit="image", file=open_progress_text())
        results, problems = zip(*shown, strict=True)
    files.loc[used, "reason"] = [REASON_DAMAGED if problem else "" for problem in problems]
    files.loc[used, "file"] += pd.Series(problems, used)
    refuse_many_lost_images(files, source)
    return pd.Series(results, used, dtype=object)[files.loc[used, "reason"] == ""]


def leave_out_duplicates(files: pd.DataFrame) -> None:
    """Give a reason, in place, to images of `list_files` whose `pixels` (an added column of arrays) are another's: to
    all if classes differ, else to all but the first, so that no test image is a training image.
    """
    used = files[files["reason"] == ""]
    same = used.groupby(used["pixels"].map(lambda pixels: hashlib.sha256(pixels).digest()))
    first, where = same["file"].transform("first"), same["split"].transform("first")
    reason = ("the same picture is in " + where + " already").where(same.cumcount() > 0, "")
    reason[same["class_name"].transform("nunique") > 1] = "the same picture is in two classes"
    files.loc[used.index, "reason"] = reason
    files.loc[used.index, "file"] += (" = " + first).where(first != used["file"], "")
