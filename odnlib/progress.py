"""A progress bar for a run: a listener for `experiment.run`."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

from odnlib.recipes import Recipe, stage_title


class ProgressBar:
    """A bar per stage with the time left if nothing more improves.

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
        """Begin a new bar."""
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
        since = record["epochs_without_improvement"]
        self.bar.total = recipe.expected_epochs(record["stage"], record["stage_epoch"], since)
        self.bar.set_postfix_str(f"validation {record['val_acc_pct']:.2f} %", refresh=False)
        self.bar.update(record["stage_epoch"] - self.bar.n)
