"""What notebooks share: checked parameters, training, source code to fold out, and the curves of a run under way."""

import html
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

from odnlib import data, experiment
from odnlib.files import ROOT
from odnlib.recipes import Recipe, RecipeError, unknown
from studies import plots

INJECTED = "# Parameters"  # how papermill begins the cell that it puts behind the one with the defaults


def assigned(source: str) -> dict[str, object]:
    """The names that a cell of plain assignments sets, and to what."""
    exec(source, {}, values := {})
    return values


def problems(defaults: dict[str, object], given: dict[str, object]) -> list[str]:
    """One line for every name that does not exist, and every value of another type than its default's."""
    lines = [unknown(name, defaults) for name in given.keys() - defaults]
    for name in given.keys() & defaults:
        value, kind = given[name], type(defaults[name])
        if type(value) is not kind and (type(value), kind) != (int, float):  # 90 will do for 90.0
            lines.append(f"{name} {value!r} is not of type {kind.__name__}, as {defaults[name]!r} is")
    return sorted(lines)


def check(cells: Sequence[str]) -> None:
    """Refuse what papermill silently takes: misspelt parameters, and values of another type.

    Args:
        cells: the sources of the cells run so far, as Jupyter keeps them in `In`.

    Raises:
        RecipeError: one line per problem.
    """
    for before, cell in pairwise(cells):
        if cell.startswith(INJECTED) and (lines := problems(assigned(before), assigned(cell))):
            raise RecipeError("\n".join(lines))


def folder(given: str, usual: str) -> Path:
    """The folder that a notebook was given, or where that is empty the `usual` one of the repository."""
    return Path(given).expanduser() if given else ROOT / usual


class Workplace:
    """Where a notebook trains and writes: folders as `folder` takes them, a device, and a time, before which runs that
    were begun start over (empty: none does).

    Raises:
        RecipeError: where the device does not exist here.
    """

    def __init__(self, results_dir: str, data_dir: str, device: str, since: str):
        self.results_dir, self.data_dir = folder(results_dir, "results"), folder(data_dir, "data")
        self.device, self.since = experiment.choose_device(device), since

    def images(self, recipe: Recipe) -> Callable[[], data.Data]:
        """What loads the images of a recipe."""
        return partial(data.load, recipe, self.data_dir, self.device)

    def train(self, recipe: Recipe) -> Path:
        """The folder of a run, of which what is left has been done."""
        return experiment.run(recipe, self.images(recipe), self.results_dir, fresh=self.since)


def fold_out(title: str, *functions: Callable) -> HTML:
    """The source code of functions, shown when one clicks on the title."""
    code = html.escape("\n\n".join(map(inspect.getsource, functions)))
    return HTML(f"<details><summary>{title}</summary><pre>{code}</pre></details>")


class LiveCurve(AbstractContextManager):
    """The curves, redrawn in place in a notebook every few seconds and at the end; a listener for `experiment.run`."""

    def __init__(self, recipe: Recipe, seconds: float = 5.0):
        self.recipe, self.seconds, self.records, self.drawn = recipe, seconds, [], time.monotonic()
        self.handle = display("waiting for the first epoch", display_id=True)

    def __exit__(self, *_: object) -> None:
        if self.records:
            self.draw()

    def __call__(self, recipe: Recipe, record: dict) -> None:
        self.records.append(record)
        if time.monotonic() - self.drawn > self.seconds:
            self.draw()

    def draw(self) -> None:
        """Draw what there is so far."""
        figure = plots.history(pd.DataFrame(self.records), self.recipe)
        self.handle.update(figure)
        plt.close(figure)
        self.drawn = time.monotonic()
