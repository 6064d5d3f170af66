"""What the tests share: tiny data and recipes that train in a second."""

import pytest
import torch

from odnlib import checkpoint, recipes
from odnlib.data import Data, Dataset, Split

torch.set_num_threads(1)
TINY = Dataset("tiny", "none", (1, 8, 8), 3, validation_images=30)


def tiny_split(images: int, seed: int) -> Split:
    """Three classes of noisy stripes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (images,), generator=random)
    pattern = torch.stack([(torch.arange(8) % (k + 2) == 0).float().expand(8, 8) for k in range(3)])
    noisy = 30 * pattern[labels] + 220 * torch.rand(images, 8, 8, generator=random)
    return Split(noisy.to(torch.uint8)[:, None], labels, TINY)


def pytest_collection_modifyitems(items):
    """What regenerates through papermill or opens a browser takes long."""
    for item in items:
        if {"regenerated", "browser"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    """The tests' epochs are shorter than the time between two checkpoints."""
    monkeypatch.setattr(checkpoint, "SAVES_APART", 0.0)


@pytest.fixture
def tiny_data() -> Data:
    return Data(tiny_split(70, 1), tiny_split(30, 2), tiny_split(30, 3))


def tiny_recipe(variant: str = "odn", seed: int = 0, protocol: str = "released", **overrides: object) -> recipes.Recipe:
    """ResNet-18 of width 8; two epochs of everything unless overridden."""
    short = {
        "width": 8,
        "batch_size": 16,
        "warmup_epochs": 2,
        "depth_epochs": 2,
        "finetune_epochs": 2,
        "full_epochs": 2,
    }
    short |= {"last_depth": 3, "target_pct": 100.0, "tolerance_pct": 0.0}
    return recipes.resolve("mnist", variant, "smoke", protocol, seed, **short | overrides)


@pytest.fixture
def float64():
    """Arithmetic in double precision for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
