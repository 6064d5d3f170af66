"""Figures of the studies that go beyond Table I's rows: data frame in, figure out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from odnlib.paper import TABLE_1
from odnlib.plots import BLUE, GREEN, ORANGE, RED, caption, stage_title
from odnlib.recipes import Recipe


def ablation(arms: dict[str, pd.DataFrame], recipe: Recipe) -> Figure:
    """The counterpart of the paper's Figure 3: one search with and one without warm-up, restarts marked."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 7), layout="constrained", sharey="row", sharex=True)
    curves = {"accuracy (%)": ("train_acc_pct", "val_acc_pct"), "loss": ("train_loss", "val_loss")}
    for column, (arm, epochs) in enumerate(arms.items()):
        for axis, (label, (train, validation)) in zip(axes[:, column], curves.items(), strict=True):
            axis.plot(epochs["epoch"], epochs[train], "-", color=ORANGE, label="training")
            axis.plot(epochs["epoch"], epochs[validation], "-", color=BLUE, label="validation")
            for start in epochs[epochs["stage_epoch"] == 1].itertuples():
                axis.axvline(start.epoch - 0.5, color="0.6", linewidth=1, zorder=1)
                if axis is axes[0, column]:
                    title = stage_title(start.stage, start.depth)
                    axis.text(start.epoch, 1.02, title, rotation=40, fontsize=8, transform=axis.get_xaxis_transform())
            if column == 0:
                axis.set_ylabel(label)
        axes[0, column].set_title(arm, pad=48)
        axes[1, column].set_xlabel("epoch")
    if not recipe.embedded and recipe.width == 64:  # the axes of the paper's figure
        axes[0, 0].set_ylim(50, 105)
        axes[1, 0].set_ylim(0, 1.4)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return caption(figure, recipe)


def depth_by_dataset(curves: pd.DataFrame, needed: pd.DataFrame, recipe: Recipe) -> Figure:
    """What each further depth gains and which depth a dataset needs: `trend.curves`, lines of `trend.table`."""
    kinds = list(dict.fromkeys(needed["architectures"]))
    figure, axes = plt.subplots(len(kinds), 2, figsize=(11, 4.2 * len(kinds)), layout="constrained", squeeze=False)
    rows = list(dict.fromkeys(needed.sort_values("paper_depth")["row"]))
    colors = dict(zip(rows, sns.color_palette("colorblind"), strict=False))
    for (left, right), kind in zip(axes, kinds, strict=True):
        names = []
        for place, row in enumerate(rows):
            at = curves[(curves["architectures"] == kind) & (curves["row"] == row)]
            names.append(TABLE_1[row].title)
            if at.empty:
                continue
            mean = at.groupby("depth")["val_acc_pct"].mean()
            left.plot(mean - mean.max(), "o-", color=colors[row], label=TABLE_1[row].title)
            depths = needed.loc[(needed["architectures"] == kind) & (needed["row"] == row), "depth"]
            beside = [place + 0.15 * (k - (len(depths) - 1) / 2) for k in range(len(depths))]
            right.plot(beside, depths, "o", color=colors[row])
            names[-1] += f"\nof {mean.index.max()}\nbest {mean.max():.1f} %"
        title = kind if kind not in set(needed["architecture"]) else f"One architecture: {kind}"
        left.set(xlabel="depth (residual blocks)", ylabel="accuracy less the best (points)")
        left.set_title(f"{title[0].upper()}{title[1:]}, validation, mean of the seeds", fontsize=11)
        right.set(xticks=range(len(rows)), ylabel="depth needed", ylim=(0, max(needed["of"]) + 0.5))
        right.set_xticklabels(names, fontsize=9)
        within = needed["tolerance_pct"].iloc[0]
        right.set_title(f"Depth within {within:g} points of the best; a point per seed", fontsize=11)
        right.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    seeds = f"seeds {', '.join(map(str, sorted(set(needed['seed']))))}"
    return caption(figure, recipe, seeds, ", ".join(sorted(set(needed["architecture"]))))


def scaling(seconds: pd.DataFrame) -> Figure:
    """Seconds of a training pass against what it grows with; columns grows, value, seconds."""
    groups = list(seconds.groupby("grows", sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(4 * len(groups), 3.6), layout="constrained")
    for axis, (name, group) in zip(axes, groups, strict=True):
        axis.plot(group["value"], group["seconds"], "o-", color=BLUE)
        axis.set(xlabel=name, ylabel="seconds per pass", ylim=(0, None), xlim=(0, None))
    figure.suptitle(
        "Cost of one training pass, ResNet-18 on random 28x28 images (other values: 512, depth 2, width 16)"
    )
    return figure


def ratios(table: pd.DataFrame) -> Figure:
    """Every measure of benchmark.csv as ours / reference on one logarithmic axis."""
    figure, axis = plt.subplots(figsize=(10, 1 + 0.32 * len(table)), layout="constrained")
    axis.hlines(table["measure"], 1, table["ratio"], color=BLUE, linewidth=3)
    axis.plot(table["ratio"], table["measure"], "o", color=BLUE)
    axis.axvline(1, color=RED, linewidth=1)
    axis.set(xscale="log", xlabel="ours / reference (1: equal)")
    axis.margins(x=0.15)
    axis.grid(False, axis="y")
    axis.invert_yaxis()
    for row, ratio in enumerate(table["ratio"]):
        axis.annotate(f"  {ratio:.3g}  ", (ratio, row), va="center", ha="left" if ratio >= 1 else "right", fontsize=9)
    return figure


def families(lines: pd.DataFrame, recipe: Recipe) -> Figure:
    """What part of each network was enough: lines of `families.table`, a point per seed."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 0.9 + 0.42 * lines["architecture"].nunique()), sharey=True)
    columns = {
        "depth_share": "depth found / all blocks",
        "size_share": "bytes / whole network",
        "test_acc_pct": "test accuracy (%)",
    }
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for met, marker, color in ((True, "o", BLUE), (False, "X", RED)):
            at = lines[lines["met_goal"] == met]
            axis.plot(at[column], at["architecture"], marker, color=color, label="goal met" if met else "goal not met")
        axis.set_xlabel(label)
        if column != "test_acc_pct":
            axis.set_xlim(0, 1.05)
    axes[0].invert_yaxis()
    figure.set_layout_engine("constrained")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    seeds = f"seeds {', '.join(map(str, sorted(set(lines['seed']))))}"
    return caption(figure, recipe, seeds, f"{lines['architecture'].nunique()} architectures")


MARKERS = {"as trained": "o", "int8": "s", "pruned": "^", "pruned + int8": "D"}


def compression(lines: pd.DataFrame, recipe: Recipe) -> Figure:
    """Validation accuracy against bytes of every compressed network; those chosen are ringed (`compress.study`)."""
    seeds = list(dict.fromkeys(lines["seed"]))
    figure, axes = plt.subplots(
        1, len(seeds), figsize=(max(10, 4.5 * len(seeds)), 5.4), layout="constrained", sharey=True, squeeze=False
    )
    for axis, seed in zip(axes[0], seeds, strict=True):
        for network, color in {"whole": ORANGE, "optimally deep": BLUE}.items():
            for method, marker in MARKERS.items():
                at = lines[(lines["seed"] == seed) & (lines["network"] == network) & (lines["method"] == method)]
                axis.plot(
                    at["zipped_bytes"] / 1e6,
                    at["val_acc_pct"],
                    marker,
                    color=color,
                    label=f"{network}, {method}",
                    alpha=0.7,
                )
                chosen = at[at["chosen"]]
                axis.plot(
                    chosen["zipped_bytes"] / 1e6,
                    chosen["val_acc_pct"],
                    marker,
                    color=RED,
                    ms=14,
                    fillstyle="none",
                    mew=2,
                )
        axis.axhline(lines.loc[lines["seed"] == seed, "least_pct"].iloc[0], color=GREEN, linestyle="--")
        axis.set(xscale="log", xlabel="zipped file (MB)", title=f"seed {seed}")
    axes[0, 0].set_ylabel("validation accuracy (%)")
    axes[0, 0].set_ylim(
        max(lines["val_acc_pct"].min() - 1, lines["least_pct"].min() - 12), lines["val_acc_pct"].max() + 1
    )
    title = (
        "dashed: optimally deep network as trained, less the tolerance; ringed: smallest file above it, of each kind"
    )
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9, title=title)
    return caption(figure, recipe, f"seeds {', '.join(map(str, seeds))}")


def reuse(lines: pd.DataFrame, recipe: Recipe) -> Figure:
    """Test accuracy and training cost of the three trainings per dataset, a point per seed (`reuse.table`)."""
    arms = {
        "search": "search",
        "reused": "plain, at the sibling's depth",
        "plain": "plain, at its own depth, same cost",
    }
    pairs = list(dict.fromkeys(zip(lines["row"], lines["sibling"], strict=True)))
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for column, axis in zip(("test_acc_pct", "train_tmacs"), axes, strict=True):
        for place, (row, sibling) in enumerate(pairs):
            for k, (arm, color) in enumerate(zip(arms, (BLUE, ORANGE, GREEN), strict=True)):
                at = lines[(lines["row"] == row) & (lines["sibling"] == sibling) & (lines["arm"] == arm)]
                label = arms[arm] if place == 0 else None
                axis.plot([place + 0.2 * (k - 1)] * len(at), at[column], "o", color=color, label=label)
                for point in at.itertuples():
                    spot = place + 0.2 * (k - 1), getattr(point, column)
                    axis.annotate(point.depth, spot, (6, -3), textcoords="offset points", fontsize=8, color="0.4")
        axis.set_xticks(
            range(len(pairs)), [f"{TABLE_1[row].title}\n(sibling: {TABLE_1[other].title})" for row, other in pairs]
        )
        axis.margins(x=0.15)
    axes[0].set_ylabel("test accuracy (%); numbers: depth")
    axes[1].set(ylabel="training MACs (10¹²)", ylim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    seeds = f"seeds {', '.join(map(str, sorted(set(lines['seed']))))}"
    return caption(figure, recipe, seeds)
