"""Shared by the notebooks: checked parameters, training, display of source code, and live training curves."""

import ast
import dataclasses
import html
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache, partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, display
from pandas.io.formats.style import Styler

from odnlib import __main__, data, experiment
from odnlib.files import ROOT
from odnlib.recipes import Recipe, RecipeError, unknown_parameter_message
from odnlib.trainer import Listener
from studies import plots

INJECTED_CELL_START = "# Parameters"  # how papermill begins the cell that it puts behind the one with the defaults
TYPE_OF_PARAMETER = dict.fromkeys(("seed", "depth", "image_size", "rounds"), int) | {"overrides": dict, "targets": dict}
TYPE_OF_PARAMETER |= dict.fromkeys(("seeds", "rows", "architectures", "networks", "pairs", "sparsities_pct"), list)
TYPE_OF_PARAMETER |= dict.fromkeys(("target_pct", "points_below_whole"), float)
TYPE_OF_PARAMETER |= {"fresh": bool, "flip": bool}  # every other parameter is a text
# Columns in words; the other names are words already.
pd.set_option("display.max_colwidth", None)  # no sentence in a table is cut off
WORDS_OF_TYPE = {bool: "True or False", float: "a number", int: "a whole number"}
TITLE_OF_COLUMN = {
    "params": "parameters", "params_m": "parameters (M)", "size_mb": "size (MB)", "macs_m": "MACs (M)",
    "size_kb": "size (kB)",
    "val_acc_pct": "validation (%)", "test_acc_pct": "test (%)", "warmup_val_acc_pct": "after warm-up (%)",
    "best_val_acc_pct": "best validation (%)", "goal_pct": "goal (%)", "train_tmacs": "training MACs (10^12)",
    "of": "of blocks", "max_depth": "of blocks", "depth_share": "share of blocks", "size_share": "share of bytes",
    "sparsity_pct": "zeros (%)", "odn_ms": "chosen (ms)", "full_ms": "whole (ms)", "macs_ratio": "times fewer MACs",
    "low": "from", "high": "to", "latency_ratio": "times faster", "ratio_low": "quartile, lower",
    "judged_pct": "judged (%)", "latency_ms": "PyTorch, this CPU (ms)",
    "acc_pct": "accuracy (%)", "balanced_pct": "balanced (%)", "recall_pct": "recall (%)",
    "ratio_high": "quartile, upper", "latency_1_ms": "one image (ms)", "latency_128_ms": "128 images (ms)",
}  # fmt: skip


def show_expected_error(shell: InteractiveShell, kind: type, error: BaseException, *_: object, **__: object) -> list:
    """Show an expected error, or an interruption, in a cell without traceback; called by IPython (`set_custom_exc`)."""
    text = " ".join(["Interrupted:", *getattr(error, "__notes__", []), "- run this cell again to go on."])
    lines = [text if kind is KeyboardInterrupt else f"{kind.__name__}: {error}"]
    shell._showtraceback(kind, error, lines)
    return lines


if shell := get_ipython():
    shell.enable_matplotlib("inline")  # whatever MPLBACKEND says: figures belong into the notebook
    shell.set_custom_exc((KeyboardInterrupt, *__main__.EXIT_CODE_OF_ERROR), show_expected_error)


def style_table(lines: pd.DataFrame, precision: int = 2, caption: str = "") -> Styler:
    """Return a data frame for reading: columns in words, none empty; above it the texts that all rows share."""
    lines = lines.dropna(axis="columns", how="all")
    texts = [name for name in lines if not pd.api.types.is_numeric_dtype(lines[name])]
    alike = [name for name in texts if len(lines) > 1 and lines[name].nunique(dropna=False) == 1]
    shared = [f"{name.replace('_', ' ')} {lines[name].iloc[0]}" for name in alike if lines[name].iloc[0]]
    shown = lines.drop(columns=alike)
    shown.columns = [TITLE_OF_COLUMN.get(name, str(name).replace("_", " ")) for name in shown]
    caption = "; ".join(filter(None, [caption, *shared]))
    return shown.style.format(precision=precision, na_rep="").hide(axis="index").set_caption(caption)


def read_assignments(source: str) -> dict[str, object]:
    """Return name -> value of a cell's plain assignments; a value that is no literal is its own source as bytes."""
    values = {}
    with suppress(SyntaxError):
        for line in ast.parse(TransformerManager().transform_cell(source)).body:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                try:
                    values[line.targets[0].id] = ast.literal_eval(line.value)
                except ValueError:
                    values[line.targets[0].id] = ast.unparse(line.value).encode()
    return values


def check_parameters(cells: Sequence[str], names: str, **kinds: type) -> None:
    """Refuse, with RecipeError, notebook parameters that are misspelt or of a wrong type, and an odnlib from another
    folder. `cells` are the sources run so far, as Jupyter keeps them in `In`; `names` the notebook's parameters,
    separated by spaces; `kinds` types that differ from `TYPE_OF_PARAMETER`.
    """
    kinds, lines = {name: TYPE_OF_PARAMETER.get(name, str) for name in names.split()} | kinds, set()
    here, studies = Path("studies").absolute(), ROOT / "notebooks" / "studies"  # what this notebook imports, and ours
    if not studies.exists() or (here.exists() and not here.samefile(studies)):
        why = f"this notebook lies in {here.parent}, and odnlib in {ROOT}"
        raise RecipeError(f"{why}: start it with the .venv beside it, which ./run_all.sh --setup-only makes")
    for cell in reversed(cells):  # from the newest back to the one that sets most parameters
        values, injected = read_assignments(cell), cell.startswith(INJECTED_CELL_START)
        told = not injected and 2 * len(values.keys() & kinds) > len(kinds)
        for name, value in values.items() if injected or told else ():
            kind = kinds.get(name)  # 90 will do for 90.0; in a person's cell a value may be computed
            if kind is None:
                lines.add(unknown_parameter_message(name, kinds))
            elif type(value) not in (kind, {float: int}.get(kind), bytes if told else None):
                lines.add(f"{name} {value!r} is not {WORDS_OF_TYPE.get(kind, f'of type {kind.__name__}')}")
        if told:
            break
    if lines:
        raise RecipeError("\n".join(sorted(lines)))


def add_smoke_settings(profile: str, overrides: dict, **smoke: object) -> dict:
    """Return `overrides`; in profile smoke, which only shows that all works, with the settings `smoke` below them."""
    return (smoke if profile == "smoke" else {}) | overrides


def resolve_folder(given: str, usual: str) -> Path:
    """Return the folder `given`, or if that is "" the `usual` one, as a path; relative ones begin at the repository."""
    return ROOT / Path(given or usual).expanduser()


class NotebookTrainer:
    """Loads images and trains for a notebook; empty folders mean results/mine and data. Runs start over that began
    before the time `since` (UTC, as "2026-11-26T16:00"; "": none), or all if it is True. RecipeError if the device is
    not available.
    """

    def __init__(self, results_dir: str, data_dir: str, device: str, since: str | bool):
        self.results_dir, self.data_dir = resolve_folder(results_dir, "results/mine"), resolve_folder(data_dir, "data")
        self.device, self.since = experiment.choose_device(device), since
        self.load = lru_cache(1)(lambda recipe: data.load_splits(recipe, self.data_dir, self.device))

    def image_loader(self, recipe: Recipe) -> Callable[[], data.Data]:
        """Return a function without arguments that loads the images of a recipe."""
        return partial(self.load, dataclasses.replace(recipe, variant="odn"))  # the whole network sees the same

    def train(self, recipe: Recipe, *listeners: Listener, images: data.Data | None = None) -> Path:
        """Train what a recipe's run still lacks, on its dataset's images or on `images`, telling each epoch to
        `listeners`, and return the run's folder.
        """
        load = self.image_loader(recipe) if images is None else lambda: images
        return experiment.run(recipe, load, self.results_dir, listeners, fresh=self.since)


def fold_out_source(title: str, *functions: Callable) -> HTML:
    """Return the source code of functions as HTML for a notebook that unfolds when its title is clicked."""
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
        figure = plots.draw_history(pd.DataFrame(self.records), self.recipe)
        self.handle.update(figure)
        plt.close(figure)
        self.drawn = time.monotonic()
