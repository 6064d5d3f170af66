"""Stand-in images for trials without a download: shapes and classes of the real datasets, evidence of nothing.

Those for MNIST are scikit-learn's small handwritten digits, the others are drawn here.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HELD_BACK = 300  # the last images are for the test, as many before them for validation
INK = 4  # masks are drawn this many times larger, then averaged down
Random = np.random.Generator

GARMENTS = (  # silhouettes of Fashion-MNIST's classes: corners x,y in hundredths of the image side
    "30,10 70,10 95,30 85,45 72,38 72,90 28,90 28,38 15,45 5,30",  # t-shirt
    "30,8 70,8 76,94 56,94 50,35 44,94 24,94",  # trouser
    "32,10 68,10 92,80 78,84 70,45 70,92 30,92 30,45 22,84 8,80",  # pullover
    "38,6 62,6 60,40 80,94 20,94 40,40",  # dress
    "30,6 47,6 50,95 53,6 70,6 94,84 82,88 74,50 76,96 24,96 26,50 18,88 6,84",  # coat
    "5,70 30,62 60,40 66,46 44,66 92,62 95,74 8,80",  # sandal
    "30,8 45,8 50,20 55,8 70,8 90,60 78,64 71,40 71,92 29,92 29,40 22,64 10,60",  # shirt
    "5,52 30,48 52,30 66,34 70,50 94,60 95,76 5,76",  # sneaker
    "12,40 30,40 32,18 68,18 70,40 88,40 92,88 8,88",  # bag
    "40,8 68,8 68,55 92,70 94,90 38,90",  # boot
)
DRAWN = {  # row: classes, images, noise
    "emnist": (26, 1600, 0.05),
    "fashion_mnist": (10, 1400, 0.06),
    "svhn": (10, 1600, 0.05),
    "cifar10": (10, 1600, 0.05),
}
SHAPES = ((3, 0.5), (4, 0.4), (5, 0.45), (8, 0.6), (6, 0.87))  # stars: corners, inner / outer radius; lastly a hexagon


@cache
def _fonts(height: int) -> list[ImageFont.FreeTypeFont]:
    """Load the sans, serif and monospace fonts that matplotlib ships; `height` is in pixels of the final image."""
    import matplotlib

    files = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    return [ImageFont.truetype(file, height * INK) for file in files if "Display" not in file.name]


def _mask(drawing: str | np.ndarray, random: Random, side: int, strength: float, font: object = None) -> np.ndarray:
    """Draw a text or polygon (corners (n, 2) in 0..1), distorted by up to `strength`; return (side, side), 0..1."""
    size = side * INK
    mask = Image.new("L", (size, size))
    pen = ImageDraw.Draw(mask)
    if font:
        pen.text((size / 2, size / 2), drawing, fill=255, font=font, anchor="mm")
    else:
        pen.polygon([tuple(corner) for corner in drawing * size], fill=255)
    turn, shear, shift_x, shift_y, scale = random.uniform(-strength, strength, 5)
    matrix = (1 + scale) * np.array([[np.cos(turn), shear - np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    offset = size / 2 - matrix @ (size / 2, size / 2) + size * np.array([shift_x, shift_y]) / 3
    affine = (*matrix[0], offset[0], *matrix[1], offset[1])
    mask = mask.transform(mask.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(mask.resize((side, side), Image.Resampling.BOX), dtype=np.float64) / 255


def _stripes(random: Random, side: int, narrowest: float = 3.0, widest: float = 9.0) -> np.ndarray:
    """Return stripes of random direction and of a random width between the limits, in pixels: (side, side), -1 to 1."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    angle, width = random.uniform(0, np.pi), random.uniform(narrowest, widest)
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / width + random.uniform(0, 6))


def _coloured(mask: np.ndarray, random: Random, contrast: float, texture: float) -> np.ndarray:
    """Colour a mask (H, W), striped, on a striped background at least `contrast` darker; return (3, H, W)."""
    front = back = np.zeros(1)
    while front.mean() - back.mean() < contrast:
        front, back = random.uniform(0.1, 0.9, (2, 3, 1, 1))
    front, back = (colour + texture * _stripes(random, len(mask)) for colour in (front, back))
    return mask * front + (1 - mask) * back


def _draw(row: str, label: int, random: Random) -> np.ndarray:
    """Draw one image of class `label` for a dataset, without noise: (H, W) or (3, H, W), 0 to 1."""
    if row == "emnist":  # a letter in upper or lower case
        text = chr(ord("A" if random.random() < 0.5 else "a") + label)
        return _mask(text, random, 28, 0.15, _fonts(20)[random.integers(len(_fonts(20)))])
    if row == "fashion_mnist":  # a silhouette with a fabric
        corners = np.array([corner.split(",") for corner in GARMENTS[label].split()], dtype=float) / 100
        corners += random.normal(0, 0.025, corners.shape)
        fabric = random.uniform(0.45, 0.9) + random.uniform(0, 0.2) * _stripes(random, 28)
        return _mask(corners, random, 28, 0.12) * fabric
    if row == "svhn":  # a coloured digit between parts of two others, left and right
        font = _fonts(24)[random.integers(len(_fonts(24)))]
        mask = _mask(str(label), random, 32, 0.12, font)
        for direction in (1, -1):
            neighbour = np.pad(_mask(str(random.integers(10)), random, 32, 0.05, font), ((0, 0), (32, 32)))
            start = 32 + direction * int(random.integers(17, 22))
            mask = np.maximum(mask, neighbour[:, start : start + 32])
        return _coloured(mask, random, 0.25, 0.05)
    corners, inner = SHAPES[label % 5]  # cifar10: a shape with fine (classes 0 to 4) or coarse stripes
    polar = [(0.42 * (inner if i % 2 else 1), i * np.pi / corners - np.pi / 2) for i in range(2 * corners)]
    mask = _mask(np.array([(0.5 + r * np.cos(a), 0.5 + r * np.sin(a)) for r, a in polar]), random, 32, 0.15)
    stripes = 0.2 * _stripes(random, 32, *((2.5, 4.0) if label < 5 else (7.0, 10.0)))
    return _coloured(mask, random, 0.3, 0.03) + mask * stripes


def stand_ins(row: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a dataset's stand-in images (N, C, H, W) uint8 and labels (N,) int64, always in the same random order."""
    random = np.random.default_rng(list(row.encode()))
    if row == "mnist":  # 1,797 handwritten digits of 8x8 pixels, 0..16 (Alpaydin and Kaynak, 1998), enlarged
        from sklearn.datasets import load_digits  # takes seconds, and the other rows do without

        images, labels = load_digits(return_X_y=True)
        small = (255 / 16 * images.reshape(-1, 8, 8)).round().astype(np.uint8)
        images = np.stack([Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR) for image in small])
    else:
        classes, count, noise = DRAWN[row]
        labels = np.arange(count) % classes
        drawn = (_draw(row, int(label), random) for label in labels)  # each followed by its noise
        noisy = np.stack([image + random.normal(0, noise, image.shape) for image in drawn])
        images = np.clip(255 * noisy, 0, 255).astype(np.uint8)
    order = random.permutation(len(labels))
    return images.reshape(len(labels), -1, *images.shape[-2:])[order], labels[order].astype(np.int64)
