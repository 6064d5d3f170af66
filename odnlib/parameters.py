"""Parameters of notebooks: refuse what papermill would silently take, misspelt names and values of another type."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from odnlib import ROOT
from odnlib.recipes import RecipeError

INJECTED = "# Parameters"  # how papermill begins the cell that it puts behind the one with the defaults


def assigned(source: str) -> dict[str, object]:
    """The names that a cell of plain assignments sets, and to what."""
    found = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                found[line.targets[0].id] = ast.literal_eval(line.value)
            except ValueError:  # float("nan"): its own text is of no type that a parameter has
                found[line.targets[0].id] = ast.unparse(line.value).encode()
    return found


def problems(defaults: dict[str, object], given: dict[str, object]) -> list[str]:
    """One line for every name that does not exist, and every value of another type than its default's."""
    lines = [f"there is no parameter {name!r}: choose from {', '.join(defaults)}" for name in given.keys() - defaults]
    for name in given.keys() & defaults:
        value, kind = given[name], type(defaults[name])
        if type(value) is not kind and (type(value), kind) != (int, float):  # 90 will do for 90.0
            lines.append(f"{name} {value!r} is not of type {kind.__name__}, as {defaults[name]!r} is")
    return sorted(lines)


def folder(given: str, usual: str) -> Path:
    """The folder that a notebook was given, or where that is empty the `usual` one of the repository."""
    return Path(given).expanduser() if given else ROOT / usual


def check(cells: Sequence[str]) -> None:
    """Compare what papermill gave a notebook with what the notebook knows.

    Args:
        cells: the sources of the cells run so far, as Jupyter keeps them in `In`.

    Raises:
        RecipeError: one line per problem.
    """
    for before, cell in pairwise(cells):
        if cell.startswith(INJECTED) and (found := problems(assigned(before), assigned(cell))):
            raise RecipeError("\n".join(found))
