"""Progress of a training run: its status file and its progress bar, listeners of `experiment.run`."""

import math
import os
import re
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from odnlib.files import ROOT, write_json
from odnlib.recipes import Recipe, stage_title


class ProgressListener:
    """Base of the listeners below: calls their `update` after every epoch of training, and about once a second within.

    Arguments of `update`: training stage, depth, epochs done in the stage, epochs expected of it if nothing more
    improves, and the record of its latest epoch (a dict, empty before there is one).
    """

    record: dict = {}  # noqa: RUF012 - the latest of any stage, never changed in place

    def __call__(self, recipe: Recipe, record: dict) -> None:
        self.record = record
        self.within_epoch(recipe, record["stage"], record["depth"], record["stage_epoch"], 0.0)

    def within_epoch(self, recipe: Recipe, stage: str, depth: int, number: int, part: float) -> None:
        """Call `update`; `number` is the epoch's in its stage, from 0, `part` how much of it is over, 0 to 1."""
        last = self.record if (self.record.get("stage"), self.record.get("depth")) == (stage, depth) else {}
        most = recipe.most_epochs(stage)
        converged = number - last.get("epochs_without_improvement", 0) + recipe.patience
        expected = most if recipe.one_cycle or stage == "warmup" else min(converged, most or converged)
        self.update(stage, depth, number + part, expected, last)


class StatusFile(ProgressListener):
    """Writes a run's progress to status.json in its folder, about once a second.

    Keys: where (in words), stage, depth, epochs (in all), stage_epochs, stage_epochs_expected and seconds_left (of the
    stage, if nothing more improves), val_acc_pct (best of the present depth), notebook (the one run_all.py executes).
    """

    def __init__(self, folder: Path):
        self.path, self.begun = folder / "status.json", ("", 0, 0.0, 0.0)  # stage, depth, epochs then, time

    def update(self, stage: str, depth: int, epochs: float, expected: int, last: dict) -> None:
        """Write the file; for the arguments see `ProgressListener`."""
        if self.begun[:2] != (stage, depth):
            self.begun = stage, depth, epochs, time.monotonic()
        status = {"where": f"{stage_title(stage, depth)}, {epochs:.1f} of {expected} epochs"}
        status |= {"stage": stage, "depth": depth, "epochs": self.record.get("epoch", 0)}
        status |= {"stage_epochs": epochs, "stage_epochs_expected": expected}
        done, taken = epochs - self.begun[2], time.monotonic() - self.begun[3]
        status |= {"seconds_left": taken / done * (expected - epochs) if done else None}
        accuracy_pct = (
            last["val_acc_pct"] if last.get("best_val_acc_pct") else None
        )  # of the warm-up it is no network's
        status |= {"val_acc_pct": accuracy_pct, "notebook": os.environ.get("ODN_NOTEBOOK", "")}
        write_json(self.path, status, durable=False)


def shorten_path(path: Path) -> Path:
    """Return a path relative to the repository if it lies there, otherwise unchanged, for messages."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


class NotebookText:
    """A text file for tqdm that a notebook shows and, unlike a widget, keeps; a carriage return erases its line."""

    text, handle, encoding = "", None, "utf-8"

    def write(self, text: str) -> None:
        """Append `text` and update what the notebook's cell shows."""
        self.text = re.sub(r"[^\n]*\r| +(?=\n)", "", self.text + text)
        if self.handle is None:
            from IPython.display import display  # comes with every kernel, and odnlib does without

            self.handle = display({"text/plain": ""}, raw=True, display_id=True)
        self.handle.update({"text/plain": self.text}, raw=True)

    def flush(self) -> None:
        """Do nothing, since `write` shows all at once."""


def open_progress_text() -> TextIO | NotebookText:
    """Return where progress bars are drawn: in a notebook's cell, otherwise on stderr."""
    return NotebookText() if "ipykernel.ipkernel" in sys.modules else sys.stderr


class ProgressBar(ProgressListener, AbstractContextManager):
    """Shows a progress bar for each training stage: epochs, accuracy, time left in it and, in a search, for all depths.

    Drawn in notebooks and on terminals only, not where the output is a file. Interrupted, it says what is kept where.
    """

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder, self.stage, self.bar = recipe, folder, ("", 0), tqdm(disable=True)
        self.accuracy, self.done, self.began = "", 0.0, None  # work of the stages before; (time, work) at the start
        self.file = open_progress_text()

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            self.complete_bar()
        self.bar.close()
        if kind is KeyboardInterrupt:
            error.add_note(f"what was trained is kept in {shorten_path(self.folder)}")

    def complete_bar(self) -> None:
        """Fill the bar of the present stage: also one that met its goal early had all the epochs that it needed."""
        self.bar.total = self.bar.n
        self.bar.set_postfix_str(self.accuracy, refresh=False)

    def update(self, stage: str, depth: int, epochs: float, expected: int, last: dict) -> None:
        """Draw the bar, a new one if the stage is; for the arguments see `ProgressListener`."""
        recipe, blocks = self.recipe, depth or self.recipe.last_depth  # an epoch takes as long as it has blocks, about
        if (stage, depth) != self.stage:
            self.done += self.bar.n * (self.stage[1] or recipe.last_depth)
            self.complete_bar()
            self.bar.close()
            title = f"{recipe.row}, seed {recipe.seed}, {stage_title(stage, depth)}"
            form = "{desc} {percentage:3.0f} %|{bar:20}| {n:.1f} of {total:.0f} epochs{postfix}"
            how = {"bar_format": form, "file": self.file, "mininterval": 1, "miniters": 0}
            how["disable"] = self.file is sys.stderr and not sys.stderr.isatty()
            self.stage, self.accuracy, self.bar = (stage, depth), "", tqdm(desc=f"{title:<30}", total=expected, **how)
        work = self.done + epochs * blocks
        if not self.began and epochs % 1:  # within an epoch: nothing is replayed any more
            self.began = time.monotonic(), work
            if not self.bar.disable:
                tqdm.write(f"log: {shorten_path(self.folder / 'log.txt')}", self.file)
        if last:
            best = 0 if recipe.keep_last else last["best_val_acc_pct"]  # of the warm-up there is none
            self.accuracy = f"validation {last['val_acc_pct']:.2f} %" + f", best {best:.2f}" * (best > 0)
        self.bar.total = max(expected, math.ceil(epochs))
        told = filter(None, (self.accuracy, self.format_time_left(work, expected - epochs)))
        self.bar.set_postfix_str(", ".join(told), False)
        self.bar.update(epochs - self.bar.n)

    def format_time_left(self, work: float, epochs: float) -> str:
        """Return the time left for `epochs` more and for all depths, as text; `work` is done, in epochs of a block."""
        recipe, (stage, depth) = self.recipe, self.stage
        if not self.began or work <= self.began[1]:
            return ""
        pace = (time.monotonic() - self.began[0]) / (work - self.began[1])  # seconds for an epoch of one block
        here = pace * (depth or recipe.last_depth) * max(epochs, 0)
        text, each = f"{tqdm.format_interval(here)} left", recipe.depth_epochs or (depth and self.bar.total)
        if stage in ("warmup", "depth") and depth < recipe.last_depth and each:
            further = sum(range(max(depth + 1, recipe.first_depth), recipe.last_depth + 1))
            text += f", {tqdm.format_interval(here + pace * each * further)} if it takes all {recipe.last_depth} depths"
        return text
