"""Test accuracy printed and measured, of all rows: the figure of notebook 07."""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from studies.plots import BLUE, ORANGE, small_print

NOT_COMPARABLE = "measured on stand-ins or narrow networks: not comparable"


def accuracies(lines: pd.DataFrame) -> Figure:
    """Test accuracy printed and measured, one line per kind of run; `lines` as in comparison.csv."""
    lines = lines.sort_values(["profile", "row", "rule", "label", "variant"], ignore_index=True)
    names = [f"{x.row} {x.variant}, {x.profile}, {x.rule} (n = {x.n}): {x.label}" for x in lines.itertuples()]
    names = [textwrap.fill(name.rstrip(": "), 64) for name in names]
    height = 1.6 + 0.15 * sum(2 + name.count("\n") for name in names)
    figure, axis = plt.subplots(figsize=(11, height), layout="constrained")
    for apart, runs in lines.groupby(lines["verdict"] == "not comparable"):
        look = {"color": "0.6", "label": NOT_COMPARABLE} if apart else {"color": BLUE, "label": "measured"}
        axis.errorbar(runs["measured"], runs.index, xerr=runs["std"].fillna(0), fmt="o", **look)
    axis.plot(lines["paper"], lines.index, "D", color=ORANGE, fillstyle="none", mew=2, label="paper, Table I")
    axis.set_yticks(lines.index, names, fontsize=8)
    axis.set(xlabel="test accuracy (%)", ylim=(len(lines) - 0.5, -0.5))
    figure.legend(loc="outside upper center", ncols=3)
    return small_print(figure, "n runs with other seeds; bars: their standard deviation")
