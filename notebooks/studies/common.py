"""Shared by the studies, which each compare runs equal in all but a few settings: tables, intervals, verdicts."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from odnlib import recipes
from odnlib.files import TRAINING_VERSION, find_finished_runs, read_json, write_rounded_csv
from odnlib.paper import TABLE_1
from odnlib.presets import SETTINGS_OF_PROFILE, SETTINGS_OF_RULE
from studies import plots

SETTINGS_COMPARABLE_WITH_PAPER = {"carry_best", "bfloat16", "threads"}  # a reading of the paper left open, and speed
DEPTH_RANGE_SETTINGS = {"first_depth", "last_depth"}  # by `equal` a depth has the same bytes alone as in a search
SETTINGS_WITHOUT_GOAL = {"target_pct": 100.0, "tolerance_pct": 0.0}  # no depth meets it, so all are trained
STUDY_COLUMNS = ["profile", "row", "rule", "settings"]  # what the seeds of most studies have in common
CLAIM_HOLDS, CLAIM_FAILS, CLAIM_OPEN = "holds", "does not hold", "open"
ALLOWED_ACCURACY_LOSS_PTS = 0.5  # the released code's, between target and goal


def read_run(folder: Path, varied: set[str]) -> dict:
    """Return a run's folder as a dict: every setting and result, goal_pct, label, name, folder, processor,
    training_version; settings, the overrides as text without the setting names in `varied`, which its study compares;
    not_comparable, why not with the paper ("": it is).
    """
    run, made_by = recipes.read_run(folder), read_json(folder / "provenance.json")
    run.processor, run.training_version = made_by["processor"], made_by.get("training_version", 1)
    run.settings, run.not_comparable = describe_overrides(run, varied), why_not_comparable_to_paper(run, varied)
    return vars(run)


def read_finished_runs(
    results_dir: Path | str, profile: str = "*", variant: str | None = None, varied: set[str] = frozenset(),
    own: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Return a table of `read_run`, one row per finished run on a dataset of Table I (with `own` also on others) of a
    profile ("*": all) and a variant (odn, full; None: both), with full_size_mb, the MB of the whole network. Empty
    without runs.
    """
    runs = [read_run(folder, varied) for folder in find_finished_runs(results_dir, profile, variant)]
    runs = pd.DataFrame([run for run in runs if own or run["row"] in TABLE_1])
    sizes = [pd.read_csv(x / "depths.csv")["size_mb"].iloc[-1] for x in runs.get("folder", [])]
    return runs.assign(full_size_mb=sizes) if sizes else runs


def why_not_comparable_to_paper(run: Any, varied: set[str]) -> str:
    """Return, as text, why accuracy and depth of a run cannot be compared with the paper's; "" if they can.
    Settings named in `varied`, which its study compares, are no reason.
    """
    reasons = ["stand-in images"] if run.embedded else []
    reasons += [f"width {run.width}, not 64"] if run.width != 64 else []
    told = SETTINGS_COMPARABLE_WITH_PAPER | {"width"} | varied
    told |= DEPTH_RANGE_SETTINGS if run.rule == "equal" else set()
    others = {name: value for name, value in run.changed.items() if name not in told}
    return ", ".join(reasons + ([f"overridden: {recipes.describe_settings(others)}"] if others else []))


def describe_overrides(run: Any, varied: set[str], always: Iterable[str] = ()) -> str:
    """Return a run's overrides as text without the settings named in `varied`, equal for runs of one study; with those
    named in `always` (whole numbers), overridden or not, and a training version after the first, since runs by
    different versions must not be pooled.
    """
    told = {name: value for name, value in run.changed.items() if name not in {*varied, *always}}
    told |= {name: int(getattr(run, name)) for name in always if pd.notna(getattr(run, name))}
    told |= {"training_version": run.training_version} if run.training_version > 1 else {}
    return recipes.describe_settings(told)


def select_study(
    results: pd.DataFrame, recipe: recipes.Recipe, varied: set[str], always: Iterable[str] = ()
) -> pd.DataFrame:
    """Return the rows of a table of studies' results that belong with a run of `recipe` by today's code: those with its
    profile, row, rule and settings, less the names in `varied`, with those in `always`.
    """
    own = {name: getattr(recipe, name) for name in ("profile", "row", "rule") if name not in varied}
    named = {name: getattr(recipe, name) for name in always}
    run = SimpleNamespace(changed=recipe.overridden, training_version=TRAINING_VERSION, **named)
    own["settings"] = describe_overrides(run, varied, always)
    return results[(results[list(own)] == pd.Series(own)).all(axis=1)]


def select_strongest_study(results: pd.DataFrame, columns: list[str], strength: Callable = len) -> pd.DataFrame:
    """Return the rows of the study (equal values of `columns`) with the most evidence: by profile (most work first),
    whether the rule still exists, then `strength` of its rows.
    """
    studies, names = [study for _, study in results.groupby(columns, sort=False)], list(SETTINGS_OF_PROFILE)
    rules = SETTINGS_OF_RULE
    return max(studies, key=lambda x: (names.index(x["profile"].iloc[0]), x["rule"].iloc[0] in rules, strength(x)))


def list_seeds(results: pd.DataFrame) -> str:
    """Return the seeds in the column `seed` of a table as text: "seeds 0, 1"."""
    return f"seeds {', '.join(map(str, sorted(set(results['seed']))))}"


def figure_path(results_dir: Path | str, name: str, study: pd.DataFrame) -> Path:
    """Return the path of a study's PNG figure, called after `name` and the first row of `study` (profile, keys)."""
    profile, *values = study.iloc[0]
    words = [re.sub(r"[^\w.]+", "_", value) for value in (name, *values) if value]
    return Path(results_dir) / profile / "figures" / f"{'-'.join(words)}.png"


def write_study(name: str, study: ModuleType, results_dir: Path | str, profile: str) -> None:
    """Write a study's results from the runs of a profile: <name>.csv, a figure for each value of its `STUDY_COLUMNS`,
    and <name>_answers.csv if the module has `summarise_over_seeds`. Writes nothing without runs.
    """
    if (results := study.read_results(results_dir, profile)).empty:
        return
    for _, of_study in results.groupby(study.STUDY_COLUMNS):
        path = figure_path(results_dir, name, of_study[study.STUDY_COLUMNS])
        plots.save_figure(study.draw_results(of_study), path)
    folder = Path(results_dir) / profile
    write_rounded_csv(folder / f"{name}.csv", results.drop(columns="folder"))
    if hasattr(study, "summarise_over_seeds"):
        write_rounded_csv(folder / f"{name}_answers.csv", study.summarise_over_seeds(results))


def confidence_interval(values: pd.Series, level_pct: float = 95) -> tuple[float, float, float]:
    """Return mean, lower and upper limit of the t-interval of a mean; infinite with fewer than three values."""
    mean, n = values.mean(), len(values)
    half = stdtrit(n - 1, 0.5 + level_pct / 200) * values.std() / n**0.5 if n > 2 else float("inf")
    return mean, mean - half, mean + half


def judge_interval(low: float, high: float, least: float = 0.0) -> str:
    """Return whether a quantity with this interval exceeds `least`: "holds", "does not hold", or "open"."""
    return CLAIM_HOLDS if low > least else CLAIM_FAILS if high < least else CLAIM_OPEN


def describe_interval(low: float, high: float, n: int, form: str = "+.2f") -> str:
    """Return an interval as text, e.g. "95 % interval +0.10 to +0.30, n = 3"; with 0 in it also the n to go without."""
    if n < 3:
        return f"no interval, n = {n}"
    middle, half = (high + low) / 2, (high - low) / 2
    needed = math.ceil(n * (half / middle) ** 2) if middle else math.inf  # for an interval without 0
    more = "" if needed <= n else f"; {f'about {needed}' if needed < 1000 else 'more than 1,000'} would decide it"
    return f"95 % interval {low:{form}} to {high:{form}}, n = {n}{more}"


def judge_for_datasets(holds: bool, measured: Iterable[str], asked: Iterable[str] = TABLE_1) -> str:
    """Return "does not hold", or "holds", qualified where not all the datasets `asked` about are in `measured`."""
    missing = ", ".join(row for row in asked if row not in measured)
    qualified = f"holds in the rows measured; {missing} not measured" if missing else CLAIM_HOLDS
    return qualified if holds else CLAIM_FAILS


def qualify_verdict(verdict: str, why: str, not_comparable: str) -> tuple[str, str]:
    """Return (verdict, reason), both qualified by the text `not_comparable`, why runs cannot be compared with the
    paper's (""): the verdict becomes "not comparable" with stand-in images, "... at reduced scale" with narrow
    networks or fewer images, otherwise "... with other settings".
    """
    if not not_comparable:
        return verdict, why
    reduced = any(setting in not_comparable for setting in ("width", "train images"))
    scaled = f"{verdict} {'at reduced scale' if reduced else 'with other settings'}"
    return "not comparable" if "stand-in" in not_comparable else scaled, f"{not_comparable} - {why}"
