"""Classify photographs with the model.onnx beside this file: one line of CSV for each.

Needs nothing but onnxruntime, numpy and Pillow (pip install onnxruntime numpy pillow). Each photograph is prepared by
`prepared`, the function that prepared the training images.
"""

import argparse
import csv
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

READABLE = set(Image.registered_extensions()) - {".pdf", ".palm"}  # these two are only written
BATCH = 64  # photographs in memory at once


def prepared(image: Image.Image, height: int, width: int, channels: int) -> np.ndarray:
    """Return an opened image as uint8 (height, width, channels): upright, scaled down, the middle cut out, on white.

    Raises:
        ValueError: its pixels are not whole numbers of at most 16 bits.
    """
    grey, enough = channels == 1, 2 * max(height, width)  # pixels a side, below which there is no rough scaling
    image.draft("L" if grey else "RGB", (enough, enough))  # a large JPEG is decoded small: an eighth of the memory
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"mode {image.mode}, not whole numbers of at most 16 bits")
        image = Image.fromarray((values // 256).astype(np.uint8))
    if image.has_transparency_data and image.mode != "RGBA":
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA", "CMYK"):  # such as palettes, whose numbers cannot be averaged
        image = image.convert("RGB")
    if (factor := min(image.size) // enough) > 1:
        image = image.reduce(factor)
    if image.mode == "RGBA":  # on white, as pages show it
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    fitted = ImageOps.fit(image.convert("L" if grey else "RGB"), (width, height))
    return np.asarray(fitted).reshape(height, width, channels)


def photographs(place: Path) -> list[Path]:
    """Return a file, or those in a folder that look like images; tells how many others there are."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file()] if place.is_dir() else []
    hidden = {path for path in files if any(part[0] == "." for part in path.relative_to(place).parts)}
    images = [path for path in files if path.suffix.lower() in READABLE and path not in hidden]
    if others := len(files) - len(images):
        print(f"{others} other files in {place} are hidden, or no images by their endings: not used", file=sys.stderr)
    return images if place.is_dir() else [place]


def answers(files: list[Path], model: Path, every: bool):
    """Yield lines of the table as lists, the header first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (_, *shape), (_, count) = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"]) or list(map(str, range(count)))
    yield ["file", "class", "probability", "problem", *(f"probability of {name}" for name in classes if every)]
    for start in range(0, len(files), BATCH):
        images, problems = [], {}
        for file in files[start : start + BATCH]:
            try:
                with Image.open(file) as image:
                    images.append(prepared(image, *shape))
            except Exception as error:  # Pillow raises all kinds on damaged files
                problems[file] = str(error) or type(error).__name__
        found = iter(session.run(None, {"images": np.stack(images)})[0] if images else ())
        for file in files[start : start + BATCH]:
            if file in problems:
                yield [file, "", "", problems[file], *("" for _ in classes if every)]
            else:
                best = (probabilities := next(found)).argmax()
                yield [file, classes[best], probabilities[best], "", *(probabilities if every else ())]


def main() -> None:
    """Read the command line, write the table; exit status 1 if an image could not be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, help="image files, or folders that hold some at any depth")
    parser.add_argument("--out", type=Path, help="the CSV file to write; by default it is printed")
    parser.add_argument("--every", action="store_true", help="also a column with the probability of each class")
    parser.add_argument(
        "--model", type=Path, default=Path(__file__).with_name("model.onnx"), help="default: %(default)s"
    )
    asked = parser.parse_args()
    if missing := [str(x) for x in [*asked.photos, asked.model] if not x.exists()]:
        parser.error(f"there is no {', '.join(missing)}")
    if not (files := [file for place in asked.photos for file in photographs(place)]):
        parser.error(f"no images in {', '.join(map(str, asked.photos))}")
    warnings.simplefilter("ignore")  # Pillow's, of large images and odd headers
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
    out = asked.out.open("w", encoding="utf-8", errors="backslashreplace", newline="") if asked.out else sys.stdout
    failed = 0
    with out:
        for line in answers(files, asked.model, asked.every):
            csv.writer(out).writerow(line)
            failed += line[3] not in ("", "problem")
    if failed:
        sys.exit(f"{failed} of {len(files)} images cannot be read: see the column problem")


if __name__ == "__main__":
    main()
