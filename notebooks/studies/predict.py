"""Classify photographs with the model.onnx beside this file: one line of CSV for each.

Needs nothing but onnxruntime, numpy and Pillow (pip install onnxruntime numpy pillow). Each photograph is prepared by
`prepare_image`, the function that prepared the training images.
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

READABLE_ENDINGS = set(Image.registered_extensions()) - {".pdf", ".palm"}  # these two are only written


def prepare_image(image: Image.Image, height: int, width: int, channels: int) -> np.ndarray:
    """Return an opened Pillow image as uint8 (height, width, channels: 1 or 3): upright, scaled down, the middle cut
    out, on white; ValueError if its pixels are not whole numbers of at most 16 bits.
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


def find_photographs(place: Path) -> list[Path]:
    """Return `place` if it is a file, else the images in it, at any depth; tell on stderr how many others there are."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    hidden = {path for path in files if any(part[0] == "." for part in path.relative_to(place).parts)}
    images = [path for path in files if path.suffix.lower() in READABLE_ENDINGS and path not in hidden]
    if others := set(files) - set(images):
        endings = ", ".join(sorted({path.suffix.lower() or path.name for path in others}))
        print(f"{len(others)} other files in {place} are hidden or cannot be read: {endings}", file=sys.stderr)
    return images if place.is_dir() else [place]


def main() -> None:
    """Classify the photographs named on the command line, write the CSV table; exit status 1 if one cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, help="image files, or folders that hold some at any depth")
    parser.add_argument("--out", type=Path, help="the CSV file to write; by default it is printed")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"), help="%(default)s")
    asked, failed, known, right = parser.parse_args(), 0, 0, 0
    folder = asked.out.parent if asked.out else Path()
    if missing := [str(path) for path in [*asked.photos, asked.model, folder] if not path.exists()]:
        parser.error(f"there is no {', '.join(missing)}")
    if not (files := [file for place in asked.photos for file in find_photographs(place)]):
        parser.error(f"no images in {', '.join(map(str, asked.photos))}")
    try:
        session = onnxruntime.InferenceSession(asked.model, providers=["CPUExecutionProvider"])
        (_, *shape), (_, count) = session.get_inputs()[0].shape, session.get_outputs()[0].shape
        classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"]) or list(map(str, range(count)))
    except Exception as error:  # onnxruntime raises all kinds
        parser.error(f"{asked.model} is no model that was exported with this file: {error}")
    warnings.simplefilter("ignore")  # Pillow's, of large images and odd headers
    with open(asked.out or sys.stdout.fileno(), "w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        table = csv.writer(out)
        table.writerow(["file", "class", "probability", "problem", *(f"probability of {name}" for name in classes)])
        for file in files:
            try:
                with Image.open(file) as image:
                    pixels = prepare_image(image, *shape)
            except Exception as error:  # Pillow raises all kinds on damaged files
                table.writerow([file, "", "", str(error) or type(error).__name__, *("" for _ in classes)])
                failed += 1
            else:
                (probabilities,) = session.run(None, {"images": pixels[None]})[0]
                best = probabilities.argmax()
                table.writerow([file, classes[best], probabilities[best], "", *probabilities])
                known, right = known + (file.parent.name in classes), right + (file.parent.name == classes[best])
    if asked.out:
        print(f"{len(files) - failed} images classified: {asked.out}", file=sys.stderr)
    if known:
        print(f"{right} of {known} images in folders called after a class are right", file=sys.stderr)
    if failed:
        sys.exit(f"{failed} of {len(files)} images cannot be read: see the column problem")


if __name__ == "__main__":
    main()
