"""How far a run is: listeners for `experiment.run` (see `trainer.Listener`)."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm.auto import tqdm

from odnlib.files import write_json
from odnlib.recipes import Recipe, stage_title


class StatusFile:
    """status.json in a run's folder, for whoever watches from outside; no more than a second or so old.

    Holds where (in words), stage, depth, epochs (in all), stage_epochs, stage_epochs_expected (if nothing more
    improves) and val_acc_pct (the best of the present depth).
    """

    def __init__(self, folder: Path):
        self.path, self.record = folder / "status.json", {}

    def __call__(self, recipe: Recipe, record: dict) -> None:
        self.record = record
        self.within_epoch(recipe, record["stage"], record["depth"], record["stage_epoch"], 0.0)

    def within_epoch(self, recipe: Recipe, stage: str, depth: int, number: int, part: float) -> None:
        last = self.record if (self.record.get("stage"), self.record.get("depth")) == (stage, depth) else {}
        expected = recipe.expected_epochs(stage, number, last.get("epochs_without_improvement", 0))
        status = {"where": f"{stage_title(stage, depth)}, {number + part:.1f} of {expected} epochs"}
        status |= {"stage": stage, "depth": depth, "epochs": self.record.get("epoch", 0)}
        status |= {"stage_epochs": number + part, "stage_epochs_expected": expected}
        status |= {"val_acc_pct": last.get("best_val_acc_pct")}
        write_json(self.path, status, durable=False)


class ProgressBar(AbstractContextManager):
    """A bar per stage with the time left if nothing more improves.

    Drawn in notebooks and on terminals only: a file would be flooded.
    """

    def __init__(self, recipe: Recipe):
        self.title, self.stage, self.bar = f"{recipe.row} {recipe.variant}", None, None

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def show(self, recipe: Recipe, stage: str, depth: int, epochs: float, without_improvement: int | None) -> None:
        """Move the bar of this stage to `epochs`; None: what to expect has not changed."""
        if (stage, depth) != self.stage:
            self.__exit__()
        if self.bar is None:
            self.stage, without_improvement = (stage, depth), without_improvement or 0
            drawn = "ipykernel" in sys.modules or sys.stderr.isatty()
            form = "{l_bar}{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]"
            title = f"{self.title}, {stage_title(stage, depth)}"
            self.bar = tqdm(desc=title, total=1, bar_format=form, mininterval=1, disable=not drawn)
        if without_improvement is not None:
            self.bar.total = recipe.expected_epochs(stage, int(epochs), without_improvement)
        self.bar.update(epochs - self.bar.n)

    def within_epoch(self, recipe: Recipe, stage: str, depth: int, number: int, part: float) -> None:
        self.show(recipe, stage, depth, number + min(part, 0.99), None)

    def __call__(self, recipe: Recipe, record: dict) -> None:
        since = record["epochs_without_improvement"]
        self.show(recipe, record["stage"], record["depth"], record["stage_epoch"], since)
        self.bar.set_postfix_str(f"validation {record['val_acc_pct']:.2f} %")
