"""Stand-in images for trials without a download: shapes and classes of the real datasets, evidence of nothing.

An image shows two equal marks, and its class is how they lie to each other: in which direction, and how far apart (of
the 26 letters every second one has larger marks). A shallow network never sees both marks at once: so it takes some
depth to tell the classes apart, and no more.
"""

import numpy as np

IMAGES_PER_DATASET, TEST_IMAGES = 1000, 250  # the last images are for the test, as many before them for validation
# By dataset: classes, sizes of marks, pixels from mark to mark, norm (1: diamonds, 2: discs, inf: squares), image.
MARKS_OF_DATASET = {
    "mnist": (10, 1, 7, 2, (1, 28, 28)),
    "emnist": (26, 2, 7, 2, (1, 28, 28)),
    "fashion_mnist": (10, 1, 7, np.inf, (1, 28, 28)),
    "svhn": (10, 1, 8, 2, (3, 32, 32)),
    "cifar10": (10, 1, 5, 1, (3, 32, 32)),
}
RADIUS_OF_NORM = {1: 2.4, 2: 2.1, np.inf: 1.8}  # of the smaller marks, in pixels


def mark_displacements(row: str) -> np.ndarray:
    """Return how the two marks of an image lie to each other, (down, right) in pixels: array (classes / sizes, 2)."""
    classes, sizes, apart, *_ = MARKS_OF_DATASET[row]
    steps = [(y, x) for y in range(4) for x in range(-3, 4) if (y, x) > (0, 0)]
    return apart * np.array(sorted(steps, key=lambda step: max(map(abs, step)))[: classes // sizes])


def draw_stand_ins(row: str) -> tuple[np.ndarray, np.ndarray]:
    """Return 1,000 stand-in images (N, C, H, W) uint8 of a dataset and their labels (N,) int64, always the same."""
    classes, sizes, _, norm, (channels, side, _) = MARKS_OF_DATASET[row]
    random = np.random.default_rng(list(row.encode()))
    labels = random.permutation(np.arange(IMAGES_PER_DATASET) % classes)
    half, radius = mark_displacements(row)[labels // sizes] / 2, RADIUS_OF_NORM[norm] + 0.8 * (labels % sizes)
    middle = side / 2 + random.uniform(-1, 1, half.shape) * (side / 2 - 4 - np.abs(half))
    pixels, mask = np.stack(np.mgrid[:side, :side], -1), 0.0
    for end in (-half, half):
        centre = middle + end + random.normal(0, 0.3, half.shape)
        away = np.linalg.norm(pixels - centre[:, None, None], norm, -1)  # (N, H, W)
        mask = np.maximum(mask, np.clip(radius[:, None, None] + 0.5 - away, 0, 1))
    ground, colour = (random.uniform(*x, (IMAGES_PER_DATASET, channels, 1, 1)) for x in ((0, 0.2), (0.7, 1)))
    images = ground + mask[:, None] * (colour - ground)
    images += random.normal(0, 0.04, images.shape)
    return np.clip(255 * images, 0, 255).astype(np.uint8), labels
