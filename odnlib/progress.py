"""What shows a run while it goes: listeners for `experiment.run`."""

from __future__ import annotations

import sys
import time

import matplotlib.pyplot as plt
import pandas as pd
from tqdm.auto import tqdm

from odnlib.plots import history, stage_title
from odnlib.recipes import Recipe


class ProgressBar:
    """A bar per stage with the time left if nothing more improves; a listener for `experiment.run`.

    Drawn in notebooks and on terminals only: a file would be flooded.
    """

    def __init__(self, recipe: Recipe):
        self.recipe, self.bar = recipe, None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def open(self, title: str) -> None:
        drawn = "ipykernel" in sys.modules or sys.stderr.isatty()
        bar_format = "{l_bar}{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(desc=title, total=1, bar_format=bar_format, mininterval=1, disable=not drawn)

    def within_epoch(self, part: float) -> None:
        """Move to `part` (0 to 1) of the present epoch."""
        if self.bar is None:
            self.open(f"{self.recipe.row} {self.recipe.variant}")
        self.bar.update(int(self.bar.n) + min(part, 0.99) - self.bar.n)

    def __call__(self, recipe: Recipe, record: dict) -> None:
        if record["stage_epoch"] == 1:
            self.__exit__()
        if self.bar is None:
            self.open(f"{recipe.row} {recipe.variant}, {stage_title(record['stage'], record['depth'])}")
        most = recipe.most_epochs(record["stage"], record["depth"])
        converged = record["stage_epoch"] + recipe.patience - record["epochs_without_improvement"]
        if recipe.one_cycle or record["stage"] == "warmup":
            self.bar.total = most
        else:
            self.bar.total = converged if most is None else min(converged, most)
        self.bar.set_postfix_str(f"validation {record['val_acc_pct']:.2f} %", refresh=False)
        self.bar.update(record["stage_epoch"] - self.bar.n)


class LiveCurve:
    """The curves, redrawn in place in a notebook every few seconds and at the end; a listener for `experiment.run`."""

    def __init__(self, recipe: Recipe, seconds: float = 5.0):
        from IPython.display import display

        self.recipe, self.seconds = recipe, seconds
        self.records: list[dict] = []
        self.drawn = time.monotonic()
        self.handle = display("waiting for the first epoch", display_id=True)

    def __enter__(self) -> LiveCurve:
        return self

    def __exit__(self, *_: object) -> None:
        if self.records:
            self.draw()

    def __call__(self, recipe: Recipe, record: dict) -> None:
        self.records.append(record)
        if time.monotonic() - self.drawn > self.seconds:
            self.draw()

    def draw(self) -> None:
        """Draw what there is so far."""
        figure = history(pd.DataFrame(self.records), self.recipe)
        self.handle.update(figure)
        plt.close(figure)
        self.drawn = time.monotonic()
