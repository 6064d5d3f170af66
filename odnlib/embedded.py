"""Stand-in images for a start without any download: right shapes, right class counts, harder from row to row.

They illustrate and are evidence of nothing. MNIST's are real handwritten digits (scikit-learn's, 8x8 pixels, enlarged);
the other rows' are drawn here, with distortions and noise. Deterministic, no files, seconds to make.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Images = tuple[np.ndarray, np.ndarray]  # (N, C, H, W) uint8, labels (N,) int64
HELD_BACK = 300  # images for validation, and as many for the test
INK = 4  # drawn this many times larger, then averaged down

# Silhouettes on a unit square, as polygons; in the order of Fashion-MNIST's classes.
GARMENTS = {
    "t-shirt": "30,10 70,10 95,30 85,45 72,38 72,90 28,90 28,38 15,45 5,30",
    "trouser": "30,8 70,8 76,94 56,94 50,35 44,94 24,94",
    "pullover": "32,10 68,10 92,80 78,84 70,45 70,92 30,92 30,45 22,84 8,80",
    "dress": "38,6 62,6 60,40 80,94 20,94 40,40",
    "coat": "30,6 47,6 50,95 53,6 70,6 94,84 82,88 74,50 76,96 24,96 26,50 18,88 6,84",
    "sandal": "5,70 30,62 60,40 66,46 44,66 92,62 95,74 8,80",
    "shirt": "30,8 45,8 50,20 55,8 70,8 90,60 78,64 71,40 71,92 29,92 29,40 22,64 10,60",
    "sneaker": "5,52 30,48 52,30 66,34 70,50 94,60 95,76 5,76",
    "bag": "12,40 30,40 32,18 68,18 70,40 88,40 92,88 8,88",
    "boot": "40,8 68,8 68,55 92,70 94,90 38,90",
}


def _font_files() -> list[str]:
    """The sans, serif and monospace letters that matplotlib ships."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(path) for path in sorted(folder.glob("DejaVu*.ttf")) if "Display" not in path.name]


def _glyph(text: str, font: ImageFont.FreeTypeFont, size: int) -> Image.Image:
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).text((size / 2, size / 2), text, fill=255, font=font, anchor="mm")
    return mask


def _polygon(points: list[tuple[float, float]], size: int) -> Image.Image:
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).polygon([(x * size, y * size) for x, y in points], fill=255)
    return mask


def _distorted(mask: Image.Image, random: np.random.Generator, strength: float, size: int) -> np.ndarray:
    """Turn, shear, scale and shift by up to `strength`, then average down: (size, size), 0..1."""
    turn, shear, shift_x, shift_y, scale = random.uniform(-strength, strength, 5)
    matrix = (1 + scale) * np.array([[np.cos(turn), shear - np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = mask.width / 2
    offset = centre - matrix @ (centre, centre) + mask.width * np.array([shift_x, shift_y]) / 3
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    moved = mask.transform(mask.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(moved.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255


def _texture(random: np.random.Generator, size: int, period: tuple[float, float] = (3.0, 9.0)) -> np.ndarray:
    """Stripes of a random direction and a width out of `period`, in pixels: (size, size), -1..1."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    angle, width = random.uniform(0, np.pi), random.uniform(*period)
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / width + random.uniform(0, 6))


def _bytes(image: np.ndarray, random: np.random.Generator, noise: float) -> np.ndarray:
    """0..1 -> noisy uint8."""
    return np.clip(255 * (image + random.normal(0, noise, image.shape)), 0, 255).astype(np.uint8)


def _coloured(mask: np.ndarray, random: np.random.Generator, contrast: float, texture: float) -> np.ndarray:
    """A mask (H, W) in one colour on a darker one, by `contrast` at least, both striped: (3, H, W), 0..1."""
    while True:
        front, back = random.uniform(0.1, 0.9, (2, 3, 1, 1))
        if front.mean() - back.mean() >= contrast:
            break
    front = front + texture * _texture(random, len(mask))
    back = back + texture * _texture(random, len(mask))
    return mask * front + (1 - mask) * back


def letter(label: int, random: np.random.Generator, fonts: list[str]) -> np.ndarray:
    """A to Z in upper or lower case."""
    text = chr(ord("A" if random.random() < 0.5 else "a") + label)
    font = ImageFont.truetype(fonts[random.integers(len(fonts))], 20 * INK)
    return _bytes(_distorted(_glyph(text, font, 28 * INK), random, 0.15, 28), random, 0.05)[None]


def garment(label: int, random: np.random.Generator, fonts: list[str]) -> np.ndarray:
    """A silhouette with a fabric."""
    points = [tuple(int(v) / 100 for v in pair.split(",")) for pair in list(GARMENTS.values())[label].split()]
    points = [
        (x + dx, y + dy) for (x, y), (dx, dy) in zip(points, random.normal(0, 0.025, (len(points), 2)), strict=True)
    ]
    fabric = random.uniform(0.45, 0.9) + random.uniform(0, 0.2) * _texture(random, 28)
    return _bytes(_distorted(_polygon(points, 28 * INK), random, 0.12, 28) * fabric, random, 0.06)[None]


def house_number(label: int, random: np.random.Generator, fonts: list[str]) -> np.ndarray:
    """A coloured digit between parts of two others."""
    font = ImageFont.truetype(fonts[random.integers(len(fonts))], 24 * INK)
    mask = _distorted(_glyph(str(label), font, 32 * INK), random, 0.12, 32)
    for side in (-1, 1):
        neighbour = _distorted(_glyph(str(random.integers(10)), font, 32 * INK), random, 0.05, 32)
        moved = np.zeros_like(mask)
        shift = int(random.integers(17, 22))
        if side < 0:
            moved[:, :-shift] = neighbour[:, shift:]
        else:
            moved[:, shift:] = neighbour[:, :-shift]
        mask = np.maximum(mask, moved)
    return _bytes(_coloured(mask, random, 0.25, 0.05), random, 0.05)


def _star(corners: int, inner: float) -> list[tuple[float, float]]:
    """A regular star (inner < 1) or polygon (inner = cos(pi / corners))."""
    angles = np.arange(2 * corners) * np.pi / corners - np.pi / 2
    radii = 0.42 * np.where(np.arange(2 * corners) % 2, inner, 1.0)
    return [(0.5 + r * np.cos(a), 0.5 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


SHAPES = [(3, 0.5), (4, 0.4), (5, 0.45), (8, 0.6), (6, 0.87)]  # triangle, three stars, hexagon


def textured_shape(label: int, random: np.random.Generator, fonts: list[str]) -> np.ndarray:
    """One of five shapes with fine or coarse stripes, on a plain ground."""
    mask = _distorted(_polygon(_star(*SHAPES[label % 5]), 32 * INK), random, 0.15, 32)
    stripes = 0.2 * _texture(random, 32, period=(2.5, 4.0) if label < 5 else (7.0, 10.0))
    return _bytes(_coloured(mask, random, 0.3, 0.03) + mask * stripes, random, 0.05)


DRAWN: dict[str, tuple[Callable[[int, np.random.Generator, list[str]], np.ndarray], int, int]] = {
    # row: (how one image is drawn, classes, images)
    "emnist": (letter, 26, 1600),
    "fashion_mnist": (garment, 10, 1400),
    "svhn": (house_number, 10, 1600),
    "cifar10": (textured_shape, 10, 1600),
}


def _digits() -> Images:
    """1,797 handwritten digits of 8x8 pixels, 0..16 (Alpaydin and Kaynak, 1998), resized to 28x28."""
    from sklearn.datasets import load_digits  # takes seconds, and the other rows do without

    digits = load_digits()
    images = [Image.fromarray((255 / 16 * image).round().astype(np.uint8)) for image in digits.images]
    large = [np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR))[None] for image in images]
    return np.stack(large), digits.target.astype(np.int64)


def load(row: str) -> Images:
    """All embedded images of a row in a fixed random order; the last 2 x HELD_BACK are for validation and test.

    Returns:
        images (N, C, H, W) uint8 and labels (N,) int64, in the row's true shape and number of classes.
    """
    random = np.random.default_rng(list(row.encode()))
    if row == "mnist":
        images, labels = _digits()
    else:
        draw, classes, count = DRAWN[row]
        fonts, labels = _font_files(), np.arange(count) % classes
        images = np.stack([draw(int(label), random, fonts) for label in labels])
    order = random.permutation(len(labels))
    return images[order], labels[order]
