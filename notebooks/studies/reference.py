"""The authors' own training curves behind ours: single runs, read from the outputs in their notebooks."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from odnlib.files import ROOT
from studies.plots import COLOR_PAPER, RunOrRecipe


def draw_authors_curves(axes: Sequence[Axes], run: RunOrRecipe) -> bool:
    """Draw the authors' validation accuracy and training loss by epoch behind a search's curves, on the two axes given,
    if results/reference has any for it; return whether it did.

    There are none for narrow networks, stand-in images, rule `equal`, EMNIST and CIFAR-10.
    """
    file = ROOT / "results" / "reference" / f"{run.row}.csv"
    if run.width != 64 or run.embedded or run.rule not in ("released", "printed") or not file.exists():
        return False
    log = pd.read_csv(file)
    log["epoch"] += run.warmup_epochs  # it begins after the warm-up
    for axis, column in zip(axes, ("val_acc_pct", "train_loss"), strict=True):
        own = axis.get_xlim(), axis.get_ylim()
        label = "authors' log: validation accuracy, training loss"
        axis.plot(log["epoch"], log[column], color=COLOR_PAPER, linewidth=0.8, alpha=0.6, zorder=0, label=label)
        for depth, start in log.groupby("depth")["epoch"].min().add(1).items():
            place = {"transform": axis.get_xaxis_transform(), "fontsize": 8, "color": COLOR_PAPER, "rotation": 90}
            axis.text(start, 0.02, f"log: depth {depth}", va="bottom", **place)
        axis.set(xlim=(own[0][0], max(own[0][1], log["epoch"].max() + 2)), ylim=own[1])
    return True
