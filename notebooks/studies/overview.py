"""How grades are told and look; every row of Table I in a figure: accuracy against bytes."""

import re
from collections.abc import Iterator
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from odnlib.paper import TABLE_1
from studies import comparison, grades, plots

GREY = "#666666"
LOOK_OF_GRADE = {  # words in a grade (the first that it contains count): sign in tables, marker in figures, colour
    "not measured": ("·", "", "#ffffff"),
    "procedure reproduced": ("✔", "o", "#0173b2"), "not ": ("✘", "X", "#b84700"),
    "corroborated": ("●", "s", "#007a58"), "structure reproduced": ("=", "P", "#5b7a99"),
    "paper's slip": ("≠", "d", "#8a3f86"), "upper bound": ("≤", "<", GREY), "exploratory": ("○", "v", GREY),
    "compared": ("○", "^", GREY), "a trend": ("~", "p", GREY), "an illustration": ("~", "p", GREY),
}  # fmt: skip

WORDS_OF_RULE = {
    "released": "the paper's procedure", "printed": "the paper's text", "equal": "every depth alike",
    "fast": "weights carried on",
}  # fmt: skip

LOOK_OF_RUN = {  # by the paper's procedure: what `grades.list_test_accuracies` tells of it, label and grade
    "": ("inside the criteria", "procedure reproduced"), "missed": ("outside the criteria", "not "),
    "not judged": ("seen before the criteria", "exploratory"), "lost": ("outside them, files lost", "not "),
}  # fmt: skip


def find_look(grade: str) -> tuple[str, str, str]:
    """Return the sign (for tables), marker (for figures) and colour that `LOOK_OF_GRADE` has for a grade's text."""
    return next(look for words, look in LOOK_OF_GRADE.items() if words in grade)


def shorten_grade(grade: str) -> str:
    """Return a grade's text without n and reasons: "not reproduced, 0 of 1 (...)" -> "not reproduced"."""
    return grade.partition(", ")[0].partition(" (")[0]


def insert_dataset_titles(text: str) -> str:
    """Return a text with the titles of datasets in place of their names: "emnist" -> "EMNIST"."""
    return re.sub(rf"\b({'|'.join(TABLE_1)})\b", lambda row: TABLE_1[row[0]].title, text)


def judge_each_run(seeds: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """Yield (label, grade, test accuracies) for the runs of a group by the paper's procedure that are alike: inside
    the criteria, outside, seen before there were any, lost.
    """
    accuracies = grades.list_test_accuracies(seeds)
    missed = accuracies["seed"].isin([x.seed for x in seeds.itertuples() if grades.list_missed_criteria(x)])
    told = accuracies["told"].mask(missed & (accuracies["told"] == ""), "missed")
    for kind, of_kind in accuracies.groupby(told):
        yield *LOOK_OF_RUN[kind], of_kind["test_acc_pct"]


def draw_paper_and_ours(runs: pd.DataFrame) -> Figure:
    """Draw test accuracy against bytes as Table I prints them and as each kind of run found them, a point a
    seed; of the `runs` of `comparison.read_runs_from_profile` those comparable with the paper, if there are any.
    """
    kinds = comparison.select_table_1_runs(runs).dropna(subset="test_acc_pct")
    comparable = kinds["not_comparable"] == ""
    kinds = kinds[comparable | ~comparable.any()]
    measured = [row for row in TABLE_1 if row in set(kinds["row"])] or list(TABLE_1)
    figure, axes = plt.subplots(1, len(measured), figsize=(9, 4.4), layout="constrained", squeeze=False, sharex=True)
    for axis, row in zip(axes[0], measured, strict=True):
        of_row, printed = kinds[kinds["row"] == row], TABLE_1[row]
        paper = [printed.odn, printed.full]
        places = [network.size_mb for network in paper], [network.test_acc_pct for network in paper]
        style = {"color": plots.COLOR_PAPER, "fillstyle": "none", "mew": 2, "ms": 11, "lw": 1}
        axis.plot(*places, "D--", label="paper, Table I", **style)
        by_paper = SimpleNamespace(row=row, variant="odn", rule="released")
        criterion = grades.select_for_run("criteria", by_paper).query("quantity == 'test_acc_pct'")
        band = {"color": plots.COLOR_PAPER, "lw": 0, "alpha": 0.25, "label": "criterion for the accuracy"}
        for x in criterion.itertuples():
            axis.fill_between([places[0][0] / 1.4, places[0][0] * 1.4], x.low, x.high, **band)
        for _, seeds in of_row.groupby(comparison.GROUP_COLUMNS, sort=False):
            grade, mean = grades.grade_runs(seeds, runs), seeds[["size_mb", "test_acc_pct"]].mean()
            if hollow := grade.startswith("not corroborated"):  # for its depth, or for its accuracy
                grade = grades.grade_accuracy(seeds)
            label = shorten_grade(grade).replace("depth and ", "") + ", its depth not" * hollow
            points = [(label, grade, seeds["test_acc_pct"])]
            if grade.startswith(("procedure reproduced", "not reproduced")):  # each run by itself
                points = list(judge_each_run(seeds))
            _, _, color = find_look(grade)
            for label, grade_of_point, accuracies in points:
                _, marker, own = find_look(grade_of_point)
                look = {"color": own, "mfc": "white" if hollow or "lost" in label else own, "mew": 1.5, "ms": 7}
                places = [mean["size_mb"]] * len(accuracies), accuracies
                axis.plot(*places, marker, label=label, ls="none", **look)
            text = f"depth {seeds['depth'].mean():g}\n{WORDS_OF_RULE[seeds['rule'].iloc[0]]}"
            text = text if seeds["variant"].iloc[0] == "odn" else "whole"
            note = {"textcoords": "offset points", "fontsize": 8, "va": "center", "color": color}
            note["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
            right = mean["size_mb"] < 10  # of the points, where there is room
            axis.annotate(text, mean, (13 if right else -13, 0), ha="left" if right else "right", **note)
        name, times = plots.architecture_title(printed.architecture), printed.full.size_mb / printed.odn.size_mb
        title = f"{printed.title}, {name}\npaper: {paper[0].depth} of {paper[1].depth} blocks, {times:.0f} x smaller"
        axis.set_title(title, fontsize=9)
        axis.set(xscale="log", xmargin=0.15, ymargin=0.1)
        plots.label_log_axis(axis.xaxis)
        axis.tick_params(labelsize=9)
    plots.legend_above(figure, 3)
    missing = ", ".join(TABLE_1[row].title for row in TABLE_1 if row not in measured)
    figure.supxlabel("size on disk (MB)" + f"; not measured: {missing}" * bool(missing), fontsize=10)
    figure.supylabel("test accuracy (%)", fontsize=10)
    return figure
