"""Data frame in, figure out. Reads nothing, trains nothing."""

from __future__ import annotations

import io
import math
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from odnlib.data import Split
from odnlib.paper import TABLE_1, PrintedRow
from odnlib.recipes import Recipe
from odnlib.results import replace

sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
BLUE, ORANGE, GREEN, RED, *_ = sns.color_palette("colorblind")
NOT_EVIDENCE = "embedded stand-in images, narrow network: an illustration, no reproduction"


def evidence(recipe: Recipe, seeds: str = "", architectures: str = "", varied: tuple[str, ...] = ()) -> str:
    """What a table or figure of this recipe is evidence of, in a line that stands on it.

    Args:
        seeds, architectures: where several are shown. varied: settings that are not alike in all that is shown.
    """
    untold = {"architecture", *varied}
    settings = [f"{name}={str(value).lower()}" for name, value in recipe.overridden.items() if name not in untold]
    rule = " ".join([f"{recipe.protocol} protocol", *["with"] * bool(settings), *settings])
    own = recipe.row not in TABLE_1
    kind = NOT_EVIDENCE if recipe.embedded else f"{'own' if own else 'real'} images, profile {recipe.profile}"
    if not recipe.embedded and recipe.width != 64:
        kind += ", narrow network" + ": a trend, not a row of Table I" * (not own)
    network = f"{architectures or recipe.architecture}, width {recipe.width}" + " of 64" * (recipe.width != 64)
    return f"{network}, {rule}, {seeds or f'seed {recipe.seed}'} - {kind}"


def small_print(figure: Figure, text: str) -> Figure:
    width = int(figure.get_figwidth() * 13)  # characters that fit
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=9, color="0.35")
    return figure


def caption(figure: Figure, recipe: Recipe, *others: str, varied: tuple[str, ...] = ()) -> Figure:
    return small_print(figure, evidence(recipe, *others, varied=varied))


def save(figure: Figure, path: Path) -> None:
    """Write a figure for print, in whole or not at all, and close it.

    256 colours are enough for charts, and a third of the size.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    plt.close(figure)
    picture = Image.open(drawn).convert("RGB").quantize(256)
    replace(path, lambda temporary: picture.save(temporary, format="png", optimize=True))


def stage_title(stage: str, depth: int) -> str:
    return {"warmup": "warm-up", "depth": f"depth {depth}", "finetune": f"fine-tuning {depth}"}.get(stage, "full")


def mark_stages(axis: Axes, epochs: pd.DataFrame, titled: bool = True) -> None:
    """A line where each stage starts, and above it, where there is room, what it is."""
    axis.grid(False, axis="x")
    searched, place = set(epochs.loc[epochs["stage"] == "depth", "depth"]), -math.inf
    for start in epochs[epochs["stage_epoch"] == 1].itertuples():
        axis.axvline(start.epoch - 0.5, color="0.4", linewidth=1, linestyle=":", zorder=1)
        place = max(start.epoch, place + 0.04 * len(epochs))
        title = stage_title(start.stage, start.depth)
        if start.stage == "finetune" and start.depth not in searched:  # the largest depth: nothing is left to search
            title = f"depth {start.depth}, the last"
        if titled:
            axis.text(place, 1.02, title, rotation=40, fontsize=8, transform=axis.get_xaxis_transform())


def samples(split: Split, count: int = 12) -> Figure:
    """Images of a split with their labels, every class in turn."""
    figure, axes = plt.subplots(1, count, figsize=(count * 0.9, 1.3), layout="constrained")
    names = split.dataset.class_names or range(split.dataset.classes)
    labels = pd.Series(split.labels.cpu())
    numbers = labels.groupby(labels).cumcount().sort_values(kind="stable").index[:count]
    for axis in axes:
        axis.axis("off")
    for axis, number in zip(axes, numbers, strict=False):
        axis.imshow(split.images[number].cpu().permute(1, 2, 0).squeeze(), cmap="gray")
        axis.set_title(names[labels[number]], fontsize=8 if split.dataset.class_names else 10)
    return figure


def structure(frame: pd.DataFrame, recipe: Recipe, printed: PrintedRow) -> Figure:
    """Parameters and MACs against depth; at full width the paper's two networks are drawn in."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    columns = {
        "params": ("parameters (millions)", 1e6, "params_m"),
        "macs_m": ("MACs per image (millions)", 1, "macs_m"),
    }
    for axis, (column, (label, unit, paper)) in zip(axes, columns.items(), strict=True):
        axis.plot(frame["depth"], frame[column] / unit, "o-", color=BLUE, label="this network")
        if recipe.width == 64 and recipe.architecture == printed.architecture:
            lines = [printed.odn, printed.full]
            points = [line.depth for line in lines], [getattr(line, paper) for line in lines]
            axis.plot(*points, "D", color=ORANGE, markersize=9, fillstyle="none", mew=2, label="paper, Table I")
        axis.set(xlabel="depth (residual blocks)", ylabel=label, yscale="log", xticks=frame["depth"])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        axis.legend()
    return caption(figure, recipe)


def history(epochs: pd.DataFrame, recipe: Recipe) -> Figure:
    """Accuracy and loss against the epoch over all stages, their starts marked (compare the paper's Figure 3)."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    curves = {"accuracy (%)": ("train_acc_pct", "val_acc_pct"), "loss": ("train_loss", "val_loss")}
    for axis, (label, (train, validation)) in zip(axes, curves.items(), strict=True):
        line = ".-" if len(epochs) <= 100 else "-"
        axis.plot(epochs["epoch"], epochs[train], line, color=ORANGE, label="training")
        axis.plot(epochs["epoch"], epochs[validation], line, color=BLUE, label="validation")
        mark_stages(axis, epochs)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if recipe.variant == "odn":
        axes[0].axhline(recipe.goal_pct, color=GREEN, linestyle="--", label=f"goal {recipe.goal_pct:g} %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return caption(figure, recipe)


def depth_choice(
    depths: pd.DataFrame, recipe: Recipe, printed: PrintedRow | None = None, recommended: int | None = None
) -> Figure:
    """Validation accuracy of every depth tried against size, MACs and, where it was measured, latency; the goal and the
    depth that the search chose, or the `recommended` one, are marked.
    """
    tried = depths.dropna(subset=["val_acc_pct"])
    chosen = tried[tried["chosen"] if recommended is None else tried["depth"] == recommended]
    ring = "chosen" if recommended is None else "recommended"
    columns = {"size_mb": "size on disk (MB)", "macs_m": "MACs (millions)", "latency_ms": "latency, one image (ms)"}
    columns = {column: label for column, label in columns.items() if column in tried}
    figure, axes = plt.subplots(1, len(columns), figsize=(5.5 * len(columns), 4.4), layout="constrained", sharey=True)
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        axis.plot(tried[column], tried["val_acc_pct"], "o-", color=BLUE, label="best of each depth (its number)")
        axis.plot(chosen[column], chosen["val_acc_pct"], "o", color=RED, ms=14, fillstyle="none", mew=2, label=ring)
        for line in tried.itertuples():
            place = getattr(line, column), line.val_acc_pct
            axis.annotate(line.depth, place, (0, 10), textcoords="offset points", fontsize=9, ha="center")
        axis.axhline(recipe.goal_pct, color=GREEN, linestyle="--", label=f"goal {recipe.goal_pct:g} %")
        axis.set_xlabel(label)
        axis.margins(x=0.1, y=0.15)
        axis.set_xlim(left=-0.03 * tried[column].max())  # from 0, and room for the first depth
    axes[0].set_ylabel("validation accuracy (%)")
    title = [f"the paper chose depth {printed.odn.depth} of {printed.full.depth}"] if printed else []
    if printed and recipe.width != 64:
        title[0] += ", at full width"
    if tried["val_acc_pct"].max() < recipe.goal_pct:
        title.append("no depth met the goal")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, title="; ".join(title) or None)
    return caption(figure, recipe)


def accuracies(lines: pd.DataFrame) -> Figure:
    """Test accuracy printed and measured, one line per kind of run; `lines` as in comparison.csv."""
    lines = lines.sort_values(["profile", "row", "protocol", "tag", "variant"], ignore_index=True)
    figure, axis = plt.subplots(figsize=(11, 1.6 + 0.34 * len(lines)), layout="constrained")
    comparable = lines["verdict"] != "not comparable"
    for shown, color, label in [
        (comparable, BLUE, "measured"),
        (~comparable, "0.6", "measured on stand-ins or narrow networks: not comparable"),
    ]:
        if shown.any():
            at = lines[shown]
            axis.errorbar(at["measured"], at.index, xerr=at["std"].fillna(0), fmt="o", color=color, label=label)
    axis.plot(lines["paper"], lines.index, "D", color=ORANGE, fillstyle="none", mew=2, label="paper, Table I")
    names = [f"{x.row} {x.variant}, {x.profile} {x.protocol} {x.tag} (n = {x.n})" for x in lines.itertuples()]
    axis.set_yticks(lines.index, names, fontsize=8)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_xlabel("test accuracy (%)")
    figure.legend(loc="outside upper center", ncols=3)
    return small_print(figure, "n runs with other seeds; bars: their standard deviation")
