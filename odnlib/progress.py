"""Progress of a training run: listeners for `experiment.run` (see `trainer.Listener`)."""

import os
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm.auto import tqdm

from odnlib.files import write_json
from odnlib.recipes import Recipe, stage_title


class Progress:
    """Base of the listeners below: hands what the trainer tells (after every epoch, and within) to their `show`.

    Its arguments: training stage, depth, epochs done in it, epochs expected if nothing more improves, and the record of
    its latest epoch (empty before there is one).
    """

    record: dict = {}  # noqa: RUF012 - the latest of any stage, never changed in place

    def __call__(self, recipe: Recipe, record: dict) -> None:
        self.record = record
        self.within_epoch(recipe, record["stage"], record["depth"], record["stage_epoch"], 0.0)

    def within_epoch(self, recipe: Recipe, stage: str, depth: int, number: int, part: float) -> None:
        last = self.record if (self.record.get("stage"), self.record.get("depth")) == (stage, depth) else {}
        most = recipe.most_epochs(stage)
        converged = number - last.get("epochs_without_improvement", 0) + recipe.patience
        expected = most if recipe.one_cycle or stage == "warmup" else min(converged, most or converged)
        self.show(stage, depth, number + part, expected, last)


class StatusFile(Progress):
    """Writes a run's progress to status.json in its folder, about once a second.

    It holds where (in words), stage, depth, epochs (in all), stage_epochs, stage_epochs_expected and seconds_left (of
    the stage, if nothing more improves), val_acc_pct (the best at the present depth), and the notebook that
    run_all.py executes.
    """

    def __init__(self, folder: Path):
        self.path, self.begun = folder / "status.json", ("", 0, 0.0, 0.0)  # stage, depth, epochs then, time

    def show(self, stage: str, depth: int, epochs: float, expected: int, last: dict) -> None:
        if self.begun[:2] != (stage, depth):
            self.begun = stage, depth, epochs, time.monotonic()
        status = {"where": f"{stage_title(stage, depth)}, {epochs:.1f} of {expected} epochs"}
        status |= {"stage": stage, "depth": depth, "epochs": self.record.get("epoch", 0)}
        status |= {"stage_epochs": epochs, "stage_epochs_expected": expected}
        done, taken = epochs - self.begun[2], time.monotonic() - self.begun[3]
        status |= {"seconds_left": taken / done * (expected - epochs) if done else None}
        status |= {"val_acc_pct": last.get("best_val_acc_pct"), "notebook": os.environ.get("ODN_NOTEBOOK", "")}
        write_json(self.path, status, durable=False)


class ProgressBar(Progress, AbstractContextManager):
    """Shows a bar per training stage with the time left if nothing more improves.

    Drawn in notebooks and on terminals only, not where the output is a file.
    """

    def __init__(self, recipe: Recipe):
        self.title, self.stage, self.bar = f"{recipe.row} {recipe.variant}", None, tqdm(disable=True)

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, stage: str, depth: int, epochs: float, expected: int, last: dict) -> None:
        if (stage, depth) != self.stage:
            self.bar.close()
            self.stage, drawn = (stage, depth), "ipykernel" in sys.modules or sys.stderr.isatty()
            form = "{l_bar}{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]"
            title = f"{self.title}, {stage_title(stage, depth)}"
            self.bar = tqdm(desc=title, total=expected, bar_format=form, mininterval=1, disable=not drawn)
        self.bar.total = expected
        if last:
            self.bar.set_postfix_str(f"validation {last['val_acc_pct']:.2f} %", refresh=False)
        self.bar.update(epochs - self.bar.n)
