"""Test accuracy printed and measured, of all rows: the figure of notebook 07."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from odnlib.plots import BLUE, ORANGE, small_print


def accuracies(lines: pd.DataFrame) -> Figure:
    """Test accuracy printed and measured, one line per kind of run; `lines` as in comparison.csv."""
    lines = lines.sort_values(["profile", "row", "rule", "label", "variant"], ignore_index=True)
    names = [f"{x.row} {x.variant}, {x.profile}, {x.rule} (n = {x.n}): {x.label}" for x in lines.itertuples()]
    names = [textwrap.fill(name.rstrip(": "), 64) for name in names]
    height = 1.6 + 0.15 * sum(2 + name.count("\n") for name in names)
    figure, axis = plt.subplots(figsize=(11, height), layout="constrained")
    comparable = lines["verdict"] != "not comparable"
    for shown, color, label in [
        (comparable, BLUE, "measured"),
        (~comparable, "0.6", "measured on stand-ins or narrow networks: not comparable"),
    ]:
        if shown.any():
            at = lines[shown]
            axis.errorbar(at["measured"], at.index, xerr=at["std"].fillna(0), fmt="o", color=color, label=label)
    axis.plot(lines["paper"], lines.index, "D", color=ORANGE, fillstyle="none", mew=2, label="paper, Table I")
    axis.set_yticks(lines.index, names, fontsize=8)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_xlabel("test accuracy (%)")
    figure.legend(loc="outside upper center", ncols=3)
    return small_print(figure, "n runs with other seeds; bars: their standard deviation")
