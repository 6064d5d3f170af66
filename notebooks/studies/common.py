"""What the studies share: finished runs as a table, which of them are alike, intervals and verdicts."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from odnlib import recipes
from odnlib.files import TRAINING_VERSION, read_json, run_folders, write_table
from odnlib.paper import TABLE_1
from odnlib.presets import PROFILES, RULES
from studies import plots

COMPARABLE_OVERRIDES = {"carry_best", "bfloat16", "threads"}  # leave a run its rule's own: an open reading, and speed
ONE_DEPTH = {"first_depth", "last_depth"}  # by `equal` a depth has the same bytes alone as in a search
HOLDS, FAILS, OPEN = "holds", "does not hold", "open"
TOLERANCE_PCT = 0.5  # points of accuracy that one may lose: the released code's, between target and goal


def finished(
    results_dir: Path | str, profile: str = "*", variant: str | None = None, varied: set[str] = frozenset()
) -> pd.DataFrame:
    """One line per finished run on a row of Table I: every setting and result as a column, and goal_pct, label, name,
    folder, full_size_mb, processor, training_version, not_comparable, and the settings that the runs of a study share,
    which leave out those that are `varied` in it. Empty without runs.
    """
    lines = []
    for folder in run_folders(results_dir, profile, variant):
        line, made_by = vars(recipes.read_run(folder)), read_json(folder / "provenance.json")
        if line["row"] in TABLE_1:
            line |= {"processor": made_by["processor"], "training_version": made_by.get("training_version", 1)}
            line["settings"] = in_common(line["changed"], line["training_version"], varied)
            line["not_comparable"] = why_not_comparable_to_paper(line, varied)
            line["full_size_mb"] = pd.read_csv(folder / "depths.csv")["size_mb"].iloc[-1]
            lines.append(line)
    return pd.DataFrame(lines)


def why_not_comparable_to_paper(run: dict, varied: set[str]) -> str:
    """Why the accuracy and depth of a run, its settings and result, cannot be held against the paper's; empty where
    they can. Overrides that its study varies are no reason.
    """
    reasons = ["stand-in images"] if run["embedded"] else []
    reasons += [f"width {run['width']}, not 64"] if run["width"] != 64 else []
    told = COMPARABLE_OVERRIDES | {"width"} | varied | (ONE_DEPTH if run["rule"] == "equal" else set())
    others = {name: value for name, value in run["changed"].items() if name not in told}
    return ", ".join(reasons + ([f"overridden: {recipes.in_words(others)}"] if others else []))


def in_common(changed: dict, training_version: int, varied: set[str]) -> str:
    """Overrides less the `varied` ones, in words; a training version after the first is named with them, since runs
    that different versions made are not alike.
    """
    version = {"training_version": training_version} if training_version > 1 else {}
    return recipes.in_words({name: value for name, value in changed.items() if name not in varied} | version)


def shared(runs: pd.DataFrame, varied: set[str]) -> list[str]:
    """For each run what it has in common with those of its study (`in_common`)."""
    return [in_common(run.changed, run.training_version, varied) for run in runs.itertuples()]


def alike(lines: pd.DataFrame, recipe: recipes.Recipe, varied: set[str]) -> pd.DataFrame:
    """The lines of the study that today's run of a recipe belongs to; columns profile, row, rule and settings
    (of `finished`), of which the row may be among the `varied`.
    """
    own = {name: getattr(recipe, name) for name in ("profile", "row", "rule") if name not in varied}
    own["settings"] = in_common(recipe.overridden, TRAINING_VERSION, varied)
    return lines[(lines[list(own)] == pd.Series(own)).all(axis=1)]


def most_telling(lines: pd.DataFrame, study: list[str], worth: Callable[[pd.DataFrame], object] = len) -> pd.DataFrame:
    """The lines of one study out of several, which the columns `study` tell apart: of the strongest profile, of those
    one by a rule that there still is, of those the one of the greatest worth.
    """
    studies, names = [of_study for _, of_study in lines.groupby(study, sort=False)], list(PROFILES)
    return max(studies, key=lambda x: (names.index(x["profile"].iloc[0]), x["rule"].iloc[0] in RULES, worth(x)))


def seeds_of(lines: pd.DataFrame) -> str:
    """The seeds of a table in words."""
    return f"seeds {', '.join(map(str, sorted(set(lines['seed']))))}"


def figure_file(results_dir: Path | str, name: str, study: pd.DataFrame) -> Path:
    """Where the figure of a study is; `study` has the profile and then the columns that tell it from others."""
    profile, *values = study.iloc[0]
    words = [re.sub(r"[^\w.]+", "_", value) for value in (name, *values) if value]
    return Path(results_dir) / profile / "figures" / f"{'-'.join(words)}.png"


def write_studies(
    results_dir: Path | str, lines: pd.DataFrame, name: str, study: list[str],
    figure: Callable[[pd.DataFrame], Figure], answers: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> None:  # fmt: skip
    """One table of all studies of a profile, its column folder left out, one of the `answers` that it gives, and a
    `figure` of the lines of each; nothing without any. `study` names the columns that tell them apart, profile first.
    """
    if lines.empty:
        return
    for _, of_study in lines.groupby(study):
        plots.save(figure(of_study), figure_file(results_dir, name, of_study[study]))
    folder = Path(results_dir) / lines["profile"].iloc[0]
    write_table(folder / f"{name}.csv", lines.drop(columns="folder"))
    if answers:
        write_table(folder / f"{name}_answers.csv", answers(lines))


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean and 95 % t-interval; infinitely wide with fewer than three values, as two equal ones would give no width."""
    mean, n = values.mean(), len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std() / n**0.5 if n > 2 else float("inf")
    return mean, mean - half, mean + half


def judged(low: float, high: float, least: float = 0.0) -> str:
    """Whether a quantity of this interval is above `least`: holds, does not hold, or open."""
    return HOLDS if low > least else FAILS if high < least else OPEN


def between(low: float, high: float, n: int, form: str = "+.2f") -> str:
    """An interval in words."""
    return f"95 % interval {low:{form}} to {high:{form}}, n = {n}" if n > 2 else f"no interval, n = {n}"


def for_all(condition: bool, rows: set[str]) -> str:
    """A statement about the method: refuted by one row, borne out by all of Table I's, else as far as was measured."""
    missing = ", ".join(row for row in TABLE_1 if row not in rows)
    return FAILS if not condition else f"holds in the rows measured; {missing} not measured" if missing else HOLDS


def qualified(verdict: str, why: str, not_comparable: str) -> tuple[str, str]:
    """A verdict on a general statement: stand-ins bear none out, narrow networks or few images do at their scale."""
    if not not_comparable:
        return verdict, why
    scaled = "not comparable" if "stand-in" in not_comparable else f"{verdict} at reduced scale"
    return scaled, f"{not_comparable} - {why}"
