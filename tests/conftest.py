"""What the tests share: tiny data and recipes that train in a second."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from odnlib import models, recipes, trainer
from odnlib.data import Data, Dataset, Split
from odnlib.files import ROOT
from odnlib.trainer import Run

sys.path.insert(0, str(ROOT / "notebooks"))  # from where notebooks import their studies
torch.set_num_threads(1)
REPRODUCIBLE = ("recipe.json", "epochs.csv", "depths.csv", "result.json")
TINY = Dataset("tiny", "none", (1, 8, 8), 3, validation_images=30)


def tiny_split(images: int, seed: int) -> Split:
    """Three classes of noisy stripes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (images,), generator=random)
    pattern = torch.stack([(torch.arange(8) % (k + 2) == 0).float().expand(8, 8) for k in range(3)])
    noisy = 30 * pattern[labels] + 220 * torch.rand(images, 8, 8, generator=random)
    return Split(noisy.to(torch.uint8)[:, None], labels, TINY)


def missing(what: str) -> None:
    """Skip a test for want of something; where everything must be there, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not here")


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    """The tests' epochs are shorter than the time between two checkpoints."""
    monkeypatch.setattr(trainer, "MIN_SECONDS_BETWEEN_SAVES", 0.0)


def tiny() -> Data:
    """What `experiment.run` takes."""
    return Data(tiny_split(70, 1), tiny_split(30, 2), tiny_split(30, 3))


@pytest.fixture
def tiny_data() -> Data:
    return tiny()


def tiny_recipe(variant: str = "odn", seed: int = 0, rule: str = "released", **overrides: object) -> recipes.Recipe:
    """ResNet-18 of width 8; two epochs of everything unless overridden."""
    short = {"width": 8, "batch_size": 16, "depth_epochs": 2, "full_epochs": 2}
    short |= {} if rule == "equal" else {"warmup_epochs": 2, "finetune_epochs": 2}
    short |= {"last_depth": 3, "target_pct": 100.0, "tolerance_pct": 0.0}
    return recipes.resolve("mnist", variant, "smoke", rule, seed, **short | overrides)


def tiny_run(recipe: recipes.Recipe, data: Data, folder, listeners=()) -> Run:
    """A run at its beginning, or where it was interrupted."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = models.build(recipe.architecture, 1, 3, recipe.width).to(memory_format=torch.channels_last)
    return Run(recipe, network, data, folder, listeners)


class Killed(BaseException):
    """The process is gone."""


def killed_after(epoch: int | None):
    """A listener that is told of this epoch and then is gone, with the whole process."""

    def listener(_, record):
        if record["epoch"] == epoch:
            raise Killed

    return listener


def contents(folder: Path) -> dict[str, bytes]:
    """What must be reproducible of a run."""
    files = [*(folder / name for name in REPRODUCIBLE), *folder.glob("*.safetensors")]
    return {file.name: file.read_bytes() for file in files}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def wait_for(condition, seconds=60, what=lambda: "waited in vain"):
    """What the condition returns as soon as that is something; `what` to say where it never is."""
    end = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < end, what()
        time.sleep(0.02)
    return met


@pytest.fixture
def float64():
    """Arithmetic in double precision for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
