"""How grades are told and look; every row of Table I in two figures: accuracy against bytes, and every search."""

import math
import re
import textwrap
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from odnlib.paper import TABLE_1
from studies import common, comparison, grades, plots

GREY = "#666666"
LOOK_OF_GRADE = {  # words in a grade (the first that it contains count): sign in tables, marker in figures, colour
    "not measured": ("·", "", "#ffffff"),
    "procedure reproduced": ("✔", "o", "#0173b2"), "not ": ("✘", "X", "#b84700"),
    "corroborated": ("●", "s", "#007a58"), "structure reproduced": ("=", "P", "#5b7a99"),
    "paper's slip": ("≠", "d", "#8a3f86"), "upper bound": ("≤", "<", GREY), "exploratory": ("○", "v", GREY),
    "compared": ("○", "^", GREY), "a trend": ("~", "p", GREY), "an illustration": ("~", "p", GREY),
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


def draw_paper_and_ours(runs: pd.DataFrame) -> Figure:
    """Draw test accuracy against bytes as Table I prints them and as each kind of run found them, a point a
    seed; of the `runs` of `comparison.read_runs_from_profile` those comparable with the paper, if there are any.
    """
    kinds = comparison.select_table_1_runs(runs).dropna(subset="test_acc_pct")
    comparable = kinds["not_comparable"] == ""
    kinds, entries = kinds[comparable | ~comparable.any()], {}
    measured = [row for row in TABLE_1 if row in set(kinds["row"])] or list(TABLE_1)
    figure, axes = plt.subplots(1, len(measured), figsize=(9, 4.4), layout="constrained", squeeze=False)
    for axis, row in zip(axes[0], measured, strict=True):
        of_row, printed = kinds[kinds["row"] == row], TABLE_1[row]
        paper = [printed.odn, printed.full]
        places = [network.size_mb for network in paper], [network.test_acc_pct for network in paper]
        style = {"color": plots.COLOR_PAPER, "fillstyle": "none", "mew": 2, "ms": 11, "lw": 1}
        axis.plot(*places, "D--", label="paper, Table I", **style)
        by_paper = SimpleNamespace(row=row, variant="odn", rule="released")
        criterion = grades.select_for_run("criteria", by_paper).query("quantity == 'test_acc_pct'")
        bar = {"color": plots.COLOR_PAPER, "lw": 7, "alpha": 0.3, "zorder": 1}
        axis.vlines(places[0][0], criterion["low"], criterion["high"], label="criterion for its procedure", **bar)
        for _, seeds in of_row.groupby(comparison.GROUP_COLUMNS, sort=False):
            grade, mean = grades.grade_runs(seeds, runs), seeds[["size_mb", "test_acc_pct"]].mean()
            if grade.startswith("not corroborated"):  # for its depth, or for its accuracy
                ring = {"color": find_look(grade)[2], "ms": 16, "fillstyle": "none", "mew": 1.5, "zorder": 4}
                axis.plot(*mean, "o", label="its depth not corroborated", **ring)
                grade = grades.grade_accuracy(seeds)
            _, marker, color = find_look(grade)
            label = shorten_grade(grade).replace("depth and ", "")
            axis.plot(seeds["size_mb"], seeds["test_acc_pct"], marker, color=color, ms=7, label=label)
            lost = grades.select_for_run("lost", next(seeds.itertuples()))["test_acc_pct"]
            if len(lost) and comparable.any():
                hollow = {"color": color, "mfc": "white", "ms": 7, "label": "its run whose files are lost"}
                axis.plot([mean["size_mb"]] * len(lost), lost, marker, **hollow)
            blocks = f"depth {seeds['depth'].mean():g}" if seeds["variant"].iloc[0] == "odn" else "whole"
            note = {"textcoords": "offset points", "fontsize": 8, "va": "center", "color": color}
            right = mean["size_mb"] < 10  # of the points, where there is room
            text = f"{blocks}, {seeds['rule'].iloc[0]}"
            axis.annotate(text, mean, (11 if right else -11, 0), ha="left" if right else "right", **note)
        name, times = plots.architecture_title(printed.architecture), printed.full.size_mb / printed.odn.size_mb
        title = f"{printed.title}, {name}\npaper: {paper[0].depth} of {paper[1].depth} blocks, {times:.0f} x smaller"
        axis.set_title(title, fontsize=9)
        axis.set(xscale="log", xmargin=0.2)
        plots.label_log_axis(axis.xaxis)
        axis.tick_params(labelsize=9)
        entries |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    height = max(axis.get_ylim()[1] - axis.get_ylim()[0] for axis in axes[0]) * 1.1
    for axis in axes[0]:  # a point of accuracy is as high in every panel
        top = min(sum(axis.get_ylim()) / 2 + height / 2, 100 + height / 20)
        axis.set_ylim(top - height, top)
    figure.legend(entries.values(), entries, loc="outside upper center", ncols=3, fontsize=9)
    missing = ", ".join(TABLE_1[row].title for row in TABLE_1 if row not in measured)
    figure.supxlabel("size on disk (MB)" + f"; not measured: {missing}" * bool(missing), fontsize=10)
    figure.supylabel("test accuracy (%)", fontsize=10)
    return figure


def draw_fronts(runs: pd.DataFrame) -> Figure | None:
    """Draw validation accuracy against bytes of every depth that was tried, a panel for each kind of search for a
    dataset of Table I in `runs` (those comparable with the paper, if there are any), a curve for each seed, ringed
    where it ended; None without searches.
    """
    searches, untold = comparison.select_table_1_runs(runs), common.DEPTH_RANGE_SETTINGS | {"threads", "width"}
    comparable = searches["not_comparable"] == ""
    searches = searches[(searches["variant"] == "odn") & (comparable | ~comparable.any())]
    searches = searches.assign(label=[common.describe_overrides(run, untold) for run in searches.itertuples()])
    kinds = [kind for _, kind in searches.groupby(comparison.GROUP_COLUMNS, sort=False)]
    kinds = [kind for kind in kinds if kind["test_acc_pct"].notna().any()]
    if not kinds:
        return None
    size = {"figsize": (9, 0.6 + 2.3 * math.ceil(len(kinds) / 3)), "layout": "constrained"}
    figure, axes = plt.subplots(math.ceil(len(kinds) / 3), 3, **size, squeeze=False)
    for axis in axes.flat[len(kinds) :]:
        axis.axis("off")
    for axis, kind in zip(axes.flat, reversed(kinds), strict=False):  # the profile with most work first
        first, printed, marked, depths = kind.iloc[0], TABLE_1[kind["row"].iloc[0]], {}, []
        for _, seed in kind.groupby("seed"):
            tables = pd.concat([pd.read_csv(folder / "depths.csv") for folder in seed["folder"]])
            tried = tables.dropna(subset="val_acc_pct").set_index("depth").sort_index()[["size_mb", "val_acc_pct"]]
            ended = seed[seed["met_goal"].astype(bool)].dropna(subset="test_acc_pct")
            ended = tried[tried.index.isin(ended["depth"])]
            lowest = first["goal_pct"] - 1.5  # what is below stands at the edge, with its accuracy
            shown = tried.assign(val_acc_pct=tried["val_acc_pct"].clip(lowest))
            axis.plot(*shown.to_numpy().T, ".", color=plots.COLOR_FOUND, ms=9, label="a depth tried, a point a seed")
            for size, accuracy in tried[tried["val_acc_pct"] < lowest].to_numpy():
                at_edge = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8, "color": "0.3"}
                axis.annotate(f"below: {accuracy:.1f} %", (size, lowest), **at_edge)
            style = {"color": plots.COLOR_CHOSEN, "ms": 10, "mew": 1.5, "fillstyle": "none"}
            axis.plot(*ended.to_numpy().T, "o", label="chosen", **style)
            depths += tried.index.tolist()
            told = pd.concat([ended, tried.iloc[: 3 if len(tried) <= 3 else 1]])  # more labels would overlap
            marked |= dict(zip(told["size_mb"], told.index, strict=True))
        axis.axhline(first["goal_pct"], color=plots.COLOR_GOAL, ls="--", lw=1, label="goal")
        if not first["not_comparable"]:
            axis.axvline(printed.odn.size_mb, color=plots.COLOR_PAPER, ls=":", lw=1.5, label="paper, Table I")
        n = pd.Series(depths).value_counts()  # seeds of each depth
        number = " to ".join(map(str, dict.fromkeys((min(n), max(n)))))
        words = [printed.title, *first[["rule", "label"]], f"n = {number}".replace(" ", "\u00a0")]
        axis.set_title(textwrap.fill(", ".join(filter(None, words)), 40), fontsize=8)
        axis.set(xscale="log", xmargin=0.15, ymargin=0.15)
        axis.set_xticks(list(marked), [f"{depth}\n{size:.2g} MB" for size, depth in marked.items()])
        axis.xaxis.set(minor_locator=NullLocator())
        axis.tick_params(labelsize=8)
    entries = {x: y for axis in axes.flat for y, x in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries, loc="outside upper center", ncols=4, fontsize=9)
    figure.supxlabel("depth, and size on disk (logarithmic)", fontsize=10)
    figure.supylabel("validation accuracy (%)", fontsize=10)
    return figure
