"""Shared by the notebooks: checked parameters, training, display of source code, and live training curves."""

import ast
import html
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.core.inputtransformer2 import TransformerManager
from IPython.display import HTML, display

from odnlib import data, experiment
from odnlib.files import ROOT
from odnlib.recipes import Recipe, RecipeError, unknown
from studies import plots

INJECTED = "# Parameters"  # how papermill begins the cell that it puts behind the one with the defaults
KINDS = dict.fromkeys(("seed", "depth", "image_size", "rounds"), int) | {"overrides": dict, "targets": dict}
KINDS |= dict.fromkeys(("seeds", "rows", "architectures", "pairs"), list) | {"target_pct": float}
KINDS |= {"fresh": bool, "flip": bool}  # every other parameter is a text
if shell := get_ipython():
    shell.enable_matplotlib("inline")  # whatever MPLBACKEND says: figures belong into the notebook


def assigned(source: str) -> dict[str, object]:
    """Return name -> value for the plain assignments in a cell; a value that is no literal is its source as bytes."""
    values = {}
    with suppress(SyntaxError):
        for line in ast.parse(TransformerManager().transform_cell(source)).body:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                try:
                    values[line.targets[0].id] = ast.literal_eval(line.value)
                except ValueError:
                    values[line.targets[0].id] = ast.unparse(line.value).encode()
    return values


def check(cells: Sequence[str], names: str, **kinds: type) -> None:
    """Refuse notebook parameters that are misspelt or of a wrong type, and an odnlib from another folder.

    Args:
        cells: sources of the cells run so far, as Jupyter keeps them in `In`.
        names: the notebook's parameters, separated by spaces. kinds: types that differ from those in `KINDS`.

    Raises:
        RecipeError: one line per problem.
    """
    kinds, lines = {name: KINDS.get(name, str) for name in names.split()} | kinds, set()
    here, studies = Path("studies").absolute(), ROOT / "notebooks" / "studies"  # what this notebook imports, and ours
    if not studies.exists() or (here.exists() and not here.samefile(studies)):
        why = f"this notebook lies in {here.parent}, and odnlib in {ROOT}"
        raise RecipeError(f"{why}: start it with the .venv beside it, which ./run_all.sh --setup-only makes")
    for cell in reversed(cells):  # from the newest back to the one that sets most parameters
        values, injected = assigned(cell), cell.startswith(INJECTED)
        told = not injected and 2 * len(values.keys() & kinds) > len(kinds)
        for name, value in values.items() if injected or told else ():
            kind = kinds.get(name)  # 90 will do for 90.0; in a person's cell a value may be computed
            if kind is None:
                lines.add(unknown(name, kinds))
            elif type(value) not in (kind, {float: int}.get(kind), bytes if told else None):
                lines.add(f"{name} {value!r} is not of type {kind.__name__}")
        if told:
            break
    if lines:
        raise RecipeError("\n".join(sorted(lines)))


def folder(given: str, usual: str) -> Path:
    """Return the path `given`, or if that is empty the folder `usual` of this repository."""
    return Path(given).expanduser() if given else ROOT / usual


class Workplace:
    """A notebook's folders and device, with which it loads images and trains.

    Empty folders mean results/mine and data. Runs begun before the time `since` start over; empty: none does.

    Raises:
        RecipeError: the device is not available.
    """

    def __init__(self, results_dir: str, data_dir: str, device: str, since: str):
        self.results_dir, self.data_dir = folder(results_dir, "results/mine"), folder(data_dir, "data")
        self.device, self.since = experiment.choose_device(device), since

    def images(self, recipe: Recipe) -> Callable[[], data.Data]:
        """Return a function without arguments that loads the images of a recipe."""
        return partial(data.load, recipe, self.data_dir, self.device)

    def train(self, recipe: Recipe) -> Path:
        """Train what a run still lacks and return its folder."""
        return experiment.run(recipe, self.images(recipe), self.results_dir, fresh=self.since)


def fold_out(title: str, *functions: Callable) -> HTML:
    """Return the source code of functions as HTML that unfolds when its title is clicked."""
    code = html.escape("\n\n".join(map(inspect.getsource, functions)))
    return HTML(f"<details><summary>{title}</summary><pre>{code}</pre></details>")


class LiveCurve(AbstractContextManager):
    """A listener for `experiment.run` that redraws a run's curves in the notebook every few seconds and at the end."""

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
        """Draw the epochs recorded so far, in place of the previous figure."""
        figure = plots.history(pd.DataFrame(self.records), self.recipe)
        self.handle.update(figure)
        plt.close(figure)
        self.drawn = time.monotonic()
