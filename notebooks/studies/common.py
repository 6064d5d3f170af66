"""Shared by the studies, which each compare runs equal in all but a few settings: tables, intervals, verdicts."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from odnlib import recipes
from odnlib.files import TRAINING_VERSION, find_finished_runs, read_json, write_rounded_csv
from odnlib.paper import TABLE_1
from odnlib.presets import SETTINGS_OF_PROFILE, SETTINGS_OF_RULE
from studies import plots

COMPARABLE_OVERRIDES = {"carry_best", "bfloat16", "threads"}  # a reading of the paper left open, and speed
ONE_DEPTH = {"first_depth", "last_depth"}  # by `equal` a depth has the same bytes alone as in a search
HOLDS, FAILS, OPEN = "holds", "does not hold", "open"
ALLOWED_LOSS_PCT = 0.5  # points of accuracy that one may lose: the released code's, between target and goal


def finished(
    results_dir: Path | str, profile: str = "*", variant: str | None = None, varied: set[str] = frozenset()
) -> pd.DataFrame:
    """Return one line per finished run on a dataset of Table I; empty without runs.

    Columns: every setting and result, goal_pct, label, name, folder, full_size_mb, processor, training_version,
    not_comparable, and settings (the overrides as text, without those that are `varied` within a study).
    """
    lines = []
    for folder in find_finished_runs(results_dir, profile, variant):
        line, made_by = vars(recipes.read_run(folder)), read_json(folder / "provenance.json")
        if line["row"] in TABLE_1:
            line |= {"processor": made_by["processor"], "training_version": made_by.get("training_version", 1)}
            line["settings"] = in_common(line["changed"], line["training_version"], varied)
            line["not_comparable"] = why_not_comparable_to_paper(line, varied)
            line["full_size_mb"] = pd.read_csv(folder / "depths.csv")["size_mb"].iloc[-1]
            lines.append(line)
    return pd.DataFrame(lines)


def why_not_comparable_to_paper(run: dict, varied: set[str]) -> str:
    """Return, as text, why a run's accuracy and depth cannot be compared with the paper's; empty if they can.

    Settings that are `varied` by its study are no reason.
    """
    reasons = ["stand-in images"] if run["embedded"] else []
    reasons += [f"width {run['width']}, not 64"] if run["width"] != 64 else []
    told = COMPARABLE_OVERRIDES | {"width"} | varied | (ONE_DEPTH if run["rule"] == "equal" else set())
    others = {name: value for name, value in run["changed"].items() if name not in told}
    return ", ".join(reasons + ([f"overridden: {recipes.describe_settings(others)}"] if others else []))


def in_common(changed: dict, training_version: int, varied: set[str]) -> str:
    """Return overrides as text without the `varied` ones; a training version after the first is added, since runs made
    by different versions must not be pooled.
    """
    version = {"training_version": training_version} if training_version > 1 else {}
    return recipes.describe_settings({name: value for name, value in changed.items() if name not in varied} | version)


def shared(runs: pd.DataFrame, varied: set[str]) -> list[str]:
    """Return for each run the `in_common` text of its overrides, which is equal for runs of one study."""
    return [in_common(run.changed, run.training_version, varied) for run in runs.itertuples()]


def alike(lines: pd.DataFrame, recipe: recipes.Recipe, varied: set[str]) -> pd.DataFrame:
    """Return the `lines` of the study to which a run of `recipe` with today's code belongs.

    They need the columns profile, row, rule and settings of `finished`, less the `varied` ones.
    """
    own = {name: getattr(recipe, name) for name in ("profile", "row", "rule") if name not in varied}
    own["settings"] = in_common(recipe.overridden, TRAINING_VERSION, varied)
    return lines[(lines[list(own)] == pd.Series(own)).all(axis=1)]


def most_telling(lines: pd.DataFrame, study: list[str], worth: Callable[[pd.DataFrame], object] = len) -> pd.DataFrame:
    """Return the lines of the one study with the most evidence; `study` names the columns that tell studies apart.

    Compared are the profile (most work first), whether the rule still exists, then `worth` (default: number of lines).
    """
    studies, names = [of_study for _, of_study in lines.groupby(study, sort=False)], list(SETTINGS_OF_PROFILE)
    rules = SETTINGS_OF_RULE
    return max(studies, key=lambda x: (names.index(x["profile"].iloc[0]), x["rule"].iloc[0] in rules, worth(x)))


def seeds_of(lines: pd.DataFrame) -> str:
    """Return the seeds of a table as text: "seeds 0, 1"."""
    return f"seeds {', '.join(map(str, sorted(set(lines['seed']))))}"


def hours(runs: pd.DataFrame) -> str:
    """Return how many hours a run took in the mean, and on what, as text."""
    made_by = pd.DataFrame([read_json(folder / "provenance.json") for folder in runs["folder"]])
    machines = made_by["device"].mask(made_by["device"] == "cpu", made_by["processor"])
    return f"{made_by['seconds'].mean() / 3600:.2g} on {', '.join(sorted(set(machines)))}"


def figure_file(results_dir: Path | str, name: str, study: pd.DataFrame) -> Path:
    """Return the path of a study's figure; the columns of `study` are the profile, then its other keys."""
    profile, *values = study.iloc[0]
    words = [re.sub(r"[^\w.]+", "_", value) for value in (name, *values) if value]
    return Path(results_dir) / profile / "figures" / f"{'-'.join(words)}.png"


def write_study(
    results_dir: Path | str, lines: pd.DataFrame, name: str, study: list[str],
    figure: Callable[[pd.DataFrame], Figure], answers: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> None:  # fmt: skip
    """Write one profile's results of a study: <name>.csv of `lines`, <name>_answers.csv if `answers` is given, and a
    `figure` per group of the columns `study` (profile first). Writes nothing without lines.
    """
    if lines.empty:
        return
    for _, of_study in lines.groupby(study):
        plots.save(figure(of_study), figure_file(results_dir, name, of_study[study]))
    folder = Path(results_dir) / lines["profile"].iloc[0]
    write_rounded_csv(folder / f"{name}.csv", lines.drop(columns="folder"))
    if answers:
        write_rounded_csv(folder / f"{name}_answers.csv", answers(lines))


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Return mean, lower and upper limit of the 95 % t-interval; infinite with fewer than three values."""
    mean, n = values.mean(), len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std() / n**0.5 if n > 2 else float("inf")
    return mean, mean - half, mean + half


def judged(low: float, high: float, least: float = 0.0) -> str:
    """Return whether a quantity with this interval exceeds `least`: holds, does not hold, or open."""
    return HOLDS if low > least else FAILS if high < least else OPEN


def between(low: float, high: float, n: int, form: str = "+.2f") -> str:
    """Return an interval as text, e.g. "95 % interval +0.10 to +0.30, n = 3"; with 0 in it also the n to go without."""
    if n < 3:
        return f"no interval, n = {n}"
    middle, half = (high + low) / 2, (high - low) / 2
    more = f"; about {math.ceil(n * (half / middle) ** 2):,} for one without 0" if 0 < abs(middle) < half else ""
    return f"95 % interval {low:{form}} to {high:{form}}, n = {n}{more}"


def for_all(condition: bool, rows: set[str], asked: Iterable[str] = TABLE_1) -> str:
    """Return the verdict on a claim about the datasets `asked`: "does not hold", or "holds" for the `rows` measured."""
    missing = ", ".join(row for row in asked if row not in rows)
    return FAILS if not condition else f"holds in the rows measured; {missing} not measured" if missing else HOLDS


def qualified(verdict: str, why: str, not_comparable: str) -> tuple[str, str]:
    """Return (verdict, reason), the verdict qualified if the runs are not comparable with the paper's.

    It becomes "not comparable" with stand-in images, otherwise it is "... at reduced scale".
    """
    if not not_comparable:
        return verdict, why
    scaled = "not comparable" if "stand-in" in not_comparable else f"{verdict} at reduced scale"
    return scaled, f"{not_comparable} - {why}"
