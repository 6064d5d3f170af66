"""Figures of the studies that go beyond Table I's rows: data frame in, figure out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from odnlib.paper import TABLE_1
from odnlib.plots import BLUE, GREEN, ORANGE, RED, caption, mark_stages, small_print
from odnlib.recipes import Recipe


def ablation(arms: dict[str, pd.DataFrame], recipe: Recipe) -> Figure:
    """The counterpart of the paper's Figure 3: one search with and one without warm-up, restarts marked."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 7), layout="constrained", sharey="row", sharex=True)
    curves = {"accuracy (%)": ("train_acc_pct", "val_acc_pct"), "loss": ("train_loss", "val_loss")}
    for column, (arm, epochs) in enumerate(arms.items()):
        for axis, (label, (train, validation)) in zip(axes[:, column], curves.items(), strict=True):
            axis.plot(epochs["epoch"], epochs[train], "-", color=ORANGE, label="training")
            axis.plot(epochs["epoch"], epochs[validation], "-", color=BLUE, label="validation")
            mark_stages(axis, epochs, titled=axis is axes[0, column])
            if column == 0:
                axis.set_ylabel(label)
        axes[0, column].axhline(recipe.goal_pct, color=GREEN, linestyle="--", label=f"goal {recipe.goal_pct:g} %")
        axes[0, column].set_title(arm, pad=48)
        axes[1, column].set_xlabel("epoch")
    if not recipe.embedded and recipe.width == 64:  # the axes of the paper's figure
        axes[0, 0].set_ylim(50, 105)
        axes[1, 0].set_ylim(0, 1.4)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return caption(figure, recipe)


def depth_by_dataset(curves: pd.DataFrame, needed: pd.DataFrame, recipe: Recipe) -> Figure:
    """What each further depth gains and which depth a dataset needs: `trend.curves`, lines of `trend.table`."""
    kinds = list(dict.fromkeys(needed["architectures"]))
    figure, axes = plt.subplots(len(kinds), 2, figsize=(11, 4.2 * len(kinds)), layout="constrained", squeeze=False)
    rows = list(dict.fromkeys(needed.sort_values("paper_depth")["row"]))
    within = needed["tolerance_pct"].iloc[0]
    looks = dict(zip(rows, zip(sns.color_palette("colorblind"), "osD^v", strict=False), strict=False))
    for (left, right), kind in zip(axes, kinds, strict=True):
        names = []
        for place, row in enumerate(rows):
            at = curves[(curves["architectures"] == kind) & (curves["row"] == row)]
            names.append(TABLE_1[row].title)
            if at.empty:
                continue
            mean = at.groupby("depth")["val_acc_pct"].mean()
            color, marker = looks[row]
            left.plot(mean - mean.max(), marker + "-", color=color, label=TABLE_1[row].title)
            depths = needed.loc[(needed["architectures"] == kind) & (needed["row"] == row), "depth"]
            beside = [place + 0.15 * (k - (len(depths) - 1) / 2) for k in range(len(depths))]
            right.plot(beside, depths, marker, color=color)
            names[-1] += f"\nof {mean.index.max()}\nbest {mean.max():.1f} %"
        title = kind if kind not in set(needed["architecture"]) else f"One architecture: {kind}"
        if title == kind:  # each row's own, as in the paper
            right.plot(range(len(rows)), [TABLE_1[row].odn.depth for row in rows], "_", color="0.1", ms=26, mew=2)
            right.plot([], [], "_", color="0.1", ms=14, mew=2, label="paper, Table I")
            right.legend(loc="upper left", fontsize=9)
        left.axhline(-within, color="0.3", linestyle="--", linewidth=1)
        left.set_yscale("symlog", linthresh=1)
        left.yaxis.set_major_formatter("{x:g}")
        left.set(xlabel="depth (residual blocks)", ylabel="points less than the best", ylim=(None, 0.2))
        left.set_title(f"{title[0].upper()}{title[1:]}, validation, seeds' mean; dashed: -{within:g}", fontsize=11)
        most = needed.loc[needed["architectures"] == kind, "of"].max()
        right.set(xticks=range(len(rows)), ylabel="depth needed", ylim=(0, most + 0.5))
        right.set_xticklabels(names, fontsize=9)
        right.set_title(f"Depth within {within:g} points of the best; a point per seed", fontsize=11)
        right.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    seeds = f"seeds {', '.join(map(str, sorted(set(needed['seed']))))}"
    return caption(figure, recipe, seeds, ", ".join(sorted(set(needed["architecture"]))))


def scaling(seconds: pd.DataFrame) -> Figure:
    """Seconds of a training pass against what it grows with; columns grows, value, seconds, tmacs, machine."""
    groups = list(seconds.groupby("grows", sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(4 * len(groups), 3.6), layout="constrained")
    for axis, (name, group) in zip(axes, groups, strict=True):
        axis.plot(group["value"], group["seconds"], "o-", color=BLUE, label="measured")
        in_proportion = group["tmacs"] * group["seconds"].iloc[0] / group["tmacs"].iloc[0]
        axis.plot(group["value"], in_proportion, "--", color=ORANGE, label="the smallest case times the MACs")
        axis.set(xlabel=name, ylabel="seconds per pass", ylim=(0, None), xlim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    what = "one training pass of ResNet-18 over random 28x28 images; what is not varied: 512 images, depth 2, width 16"
    return small_print(figure, f"{what} - {seconds['machine'].iloc[0]}")


COSTS = ("TMAC", "MMAC", "s", "ms")  # units of which less is better


def ratios(table: pd.DataFrame) -> Figure:
    """The rates and the costs of benchmark.csv as ours / reference, on logarithmic axes."""
    rates, costs = table[table["unit"].str.endswith("/s")], table[table["unit"].isin(COSTS)]
    figure, axes = plt.subplots(
        2, 1, figsize=(10, 1.8 + 0.3 * len(table)), layout="constrained", height_ratios=[len(rates) + 1, len(costs) + 1]
    )
    for axis, at, said in zip(axes, (rates, costs), ("rate: more is better", "cost: less is better"), strict=True):
        names = at["measure"].str.replace("_", " ")
        axis.hlines(names, 1, at["ratio"], color=BLUE, linewidth=3)
        axis.plot(at["ratio"], names, "o", color=BLUE)
        axis.axvline(1, color=RED, linewidth=1)
        axis.set(xscale="log", xlabel=f"ours / reference ({said})")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.margins(x=0.15)
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", labelsize=9)
        axis.invert_yaxis()
        for row, ratio in enumerate(at["ratio"]):
            side = "left" if ratio >= 1 else "right"
            axis.annotate(f"  {ratio:.3g}  ", (ratio, row), va="center", ha=side, fontsize=9)
    return small_print(figure, f"steps, warm-up and latency at full width - {table['machine'].iloc[0]}")


def families(lines: pd.DataFrame, recipe: Recipe) -> Figure:
    """What part of each network was enough: lines of `families.table`, a point per seed."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 0.9 + 0.42 * lines["architecture"].nunique()), sharey=True)
    columns = {
        "depth_share": "depth found (% of all blocks)",
        "size_share": "bytes (% of the whole network's)",
        "test_acc_pct": "test accuracy (%)",
    }
    names = list(dict.fromkeys(lines["architecture"]))
    place = lines["architecture"].map(names.index) + 0.16 * (lines["seed"].rank(method="dense") - 2)
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for met, marker, color in ((True, "o", BLUE), (False, "X", RED)):
            at, said = lines["met_goal"] == met, "met" if met else "not met"
            if at.any():
                shown = lines.loc[at, column] * (1 if column.endswith("pct") else 100)
                goal = f"goal {said}: {lines['goal_pct'].iloc[0]:g} % on validation"
                axis.plot(shown, place[at], marker, color=color, label=goal, ms=5)
        axis.set_xlabel(label)
    axes[0].set_xlim(0, 105)
    axes[1].set_xscale("log")
    axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes[1].xaxis.set_major_formatter("{x:g}")
    axes[1].xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.set_layout_engine("constrained")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    seeds = f"seeds {', '.join(map(str, sorted(set(lines['seed']))))}"
    return caption(figure, recipe, seeds, f"{lines['architecture'].nunique()} architectures")


MARKERS = {"as trained": "o", "int8": "s", "pruned": "^", "pruned + int8": "D"}


def compression(lines: pd.DataFrame, recipe: Recipe) -> Figure:
    """Validation accuracy against bytes of every compressed network; those chosen are filled (`compress.study`)."""
    seeds = list(dict.fromkeys(lines["seed"]))
    lowest = max(lines["val_acc_pct"].min() - 0.5, lines["least_pct"].min() - 7)
    figure, axes = plt.subplots(
        1, len(seeds), figsize=(max(10, 4.5 * len(seeds)), 5.4), layout="constrained", sharey=True, squeeze=False
    )
    for axis, seed in zip(axes[0], seeds, strict=True):
        for network, color in {"whole": ORANGE, "optimally deep": BLUE}.items():
            for method, marker in MARKERS.items():
                at = lines[(lines["seed"] == seed) & (lines["network"] == network) & (lines["method"] == method)]
                for chosen, look in ((False, {"fillstyle": "none"}), (True, {"ms": 10, "mec": "0.1", "mew": 1.5})):
                    shown = at[at["chosen"] == chosen]
                    size, accuracy = shown["zipped_bytes"] / 1e6, shown["val_acc_pct"].clip(lowest)
                    name = f"{network}, {method}" if chosen else None
                    axis.plot(size, accuracy, marker, color=color, label=name, **look)
        axis.axhline(lines.loc[lines["seed"] == seed, "least_pct"].iloc[0], color=GREEN, linestyle="--")
        axis.set(xscale="log", xlabel="zipped file (MB)", title=f"seed {seed}")
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("validation accuracy (%)")
    axes[0, 0].set_ylim(lowest - 0.3, lines["val_acc_pct"].max() + 0.5)
    title = (
        "dashed: optimally deep network as trained, less the tolerance\nfilled: smallest file of its kind above that"
    )
    if lines["val_acc_pct"].min() < lowest:
        title += "; markers on the lower edge lie below it"
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
                beside = place + 0.22 * (k - 1) + 0.04 * (at["seed"].rank(method="dense") - 2)
                axis.plot(beside, at[column], "o", color=color, label=label, ms=5)
                found = ", ".join(map(str, at["depth"]))
                spot = beside.mean(), at[column].max()
                axis.annotate(found, spot, (0, 7), textcoords="offset points", fontsize=7, color="0.3", ha="center")
        axis.set_xticks(
            range(len(pairs)), [f"{TABLE_1[row].title}\n(sibling: {TABLE_1[other].title})" for row, other in pairs]
        )
        axis.margins(x=0.15)
    axes[0].set_ylabel("test accuracy (%), a point per seed; numbers: depths")
    axes[1].set(ylabel="training MACs (10¹²)", ylim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    seeds = f"seeds {', '.join(map(str, sorted(set(lines['seed']))))}"
    return caption(figure, recipe, seeds, varied=("target_pct",))
