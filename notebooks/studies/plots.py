"""Figures drawn from data frames; nothing here reads results or trains."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image
from torch import Tensor

from odnlib.data import Split
from odnlib.files import write_atomically
from odnlib.paper import TABLE_1, PrintedRow
from odnlib.recipes import Recipe, describe_settings, stage_title

plt.rcdefaults()  # whatever a matplotlibrc says
sns.set_theme(context="paper", style="whitegrid", palette="colorblind")
WIDTH = 7.2  # inches of a figure: a printed page's, so that no letter is smaller there than drawn, 8 points or more
FOUND, PAPER, GOAL, CHOSEN, WHOLE, *_, OTHER = sns.color_palette("colorblind")  # the same thing, everywhere
TRAINING = "0.6"
STAND_INS = "embedded stand-in images, narrow network: an illustration, no reproduction"
AnyRun = Recipe | SimpleNamespace  # a finished run as it was recorded (`recipes.read_run`)


def network_title(architecture: str) -> str:
    """Return an architecture as papers write it: "ResNet-18", "WRN-16-8", "MobileNet v3 large"."""
    words = architecture.replace("resnet", "ResNet-").replace("mobilenet", "MobileNet")
    return words.replace("wrn_", "WRN-").replace("_", "-" if "wrn" in words else " ")


def evidence(run: AnyRun, seeds: str = "", architectures: str = "", varied: tuple[str, ...] = ()) -> str:
    """Return a line on what a table or figure is evidence of: architecture, settings, seeds, kind of images.

    `seeds` and `architectures` are texts for several of them; `varied` names settings to leave out.
    """
    overridden = run.overridden if isinstance(run, Recipe) else run.changed
    untold = {"architecture", "width", *varied}  # the first two have words of their own below
    settings = describe_settings({name: value for name, value in overridden.items() if name not in untold})
    own, narrow = run.row not in TABLE_1, run.width != 64
    kind = STAND_INS if run.embedded else f"{'own' if own else 'real'} images, profile {run.profile}"
    if narrow and not run.embedded:
        kind += ", narrow network" + ": a trend, not a row of Table I" * (not own)
    rule = run.rule + " (an upper bound of the depth)" * (run.rule == "fast") + " with " * bool(settings) + settings
    network = f"{architectures or network_title(run.architecture)}, width {run.width}{' of 64' * narrow}"
    return f"{network}, rule {rule}, {seeds or f'seed {run.seed}'} - {kind}"


def small_print(figure: Figure, text: str) -> Figure:
    """Write a small grey text below a figure, and return the figure."""
    width = int(figure.get_figwidth() * 15)  # characters that fit
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=8, color="0.35")
    return figure


def caption(figure: Figure, run: AnyRun, *others: str, varied: tuple[str, ...] = ()) -> Figure:
    """Write below a figure the line that `evidence` returns, and return the figure; arguments as there."""
    return small_print(figure, evidence(run, *others, varied=varied))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically, and close it; with 256 colours it takes a third of the size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(drawn := io.BytesIO(), format="png", dpi=200)
    plt.close(figure)
    picture = Image.open(drawn).convert("RGB").quantize(256)
    write_atomically(path, lambda temporary: picture.save(temporary, format="png", optimize=True))


def mark_training_stages(axis: Axes, epochs: pd.DataFrame, titled: bool = True) -> None:
    """Mark the start of each training stage by a vertical line with its title, set where there is room."""
    axis.grid(False, axis="x")
    searched, place = set(epochs.loc[epochs["stage"] == "depth", "depth"]), -math.inf
    for start in epochs[epochs["stage_epoch"] == 1].itertuples():
        axis.axvline(start.epoch - 0.5, color="0.4", linewidth=1, linestyle=":", zorder=1)
        place = max(start.epoch, place + 0.06 * len(epochs))
        unsearched = start.stage == "finetune" and start.depth not in searched  # the last: nothing is left to search
        title = f"depth {start.depth}, the last" if unsearched else stage_title(start.stage, start.depth)
        if titled:
            axis.text(place, 1.02, title, rotation=40, fontsize=8, transform=axis.get_xaxis_transform())


def pictures(images: Sequence[Tensor], titles: Sequence[object]) -> Figure:
    """Draw images (C, H, W), uint8, side by side with a title above each."""
    bare = {"frame_on": False, "xticks": [], "yticks": []}
    size = (WIDTH, 0.3 + WIDTH / len(images) + 0.14 * str(titles[0]).count("\n"))
    figure, axes = plt.subplots(1, len(images), figsize=size, layout="constrained", subplot_kw=bare, squeeze=False)
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        axis.imshow(image.cpu().permute(1, 2, 0).squeeze(), cmap="gray")
        axis.set_title(title, fontsize=8, parse_math=False)  # a class may be called $5
    return figure


def samples(split: Split, count: int = 12) -> Figure:
    """Draw `count` images of a split with their labels, every class in turn."""
    names = split.dataset.class_names or range(split.dataset.classes)
    labels = pd.Series(split.labels.cpu())
    numbers = labels.groupby(labels).cumcount().sort_values(kind="stable").index[:count]
    return pictures([split.images[number] for number in numbers], [names[labels[number]] for number in numbers])


def structure(depths: pd.DataFrame, run: AnyRun, printed: PrintedRow) -> Figure:
    """Draw parameters and MACs of a network against depth; at full width, the two that Table I prints for its row."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7), layout="constrained")
    depths, paper = depths.assign(params_m=depths["params"] / 1e6), pd.DataFrame([printed.odn, printed.full])
    columns = {"params_m": "parameters (millions)", "macs_m": "MACs per image (millions)"}
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        axis.plot(depths["depth"], depths[column], "o-", color=FOUND, label="this network")
        if run.width == 64 and run.architecture == printed.architecture:
            points = paper["depth"], paper[column]
            axis.plot(*points, "D", color=PAPER, ms=8, fillstyle="none", mew=1.5, label="paper, Table I")
        axis.set(xlabel="depth (residual blocks)", ylabel=label, yscale="log", xticks=depths["depth"])
        axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter="")
        axis.legend()
    return caption(figure, run)


def curves(axis: Axes, epochs: pd.DataFrame, column: str, line: str, titled: bool = True) -> None:
    """Draw training and validation `column`, acc_pct or loss, against the epoch, with the training stages marked."""
    color = WHOLE if "full" in set(epochs["stage"]) else FOUND
    axis.plot(epochs["epoch"], epochs[f"train_{column}"], line, color=TRAINING, label="training")
    axis.plot(epochs["epoch"], epochs[f"val_{column}"], line, color=color, label="validation")
    mark_training_stages(axis, epochs, titled)


def history(epochs: pd.DataFrame, run: AnyRun) -> Figure:
    """Draw a run's accuracy and loss against the epoch, training stages marked (compare the paper's Figure 3)."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.1), layout="constrained")
    for axis, label, column in zip(axes, ("accuracy (%)", "loss"), ("acc_pct", "loss"), strict=True):
        curves(axis, epochs, column, ".-" if len(epochs) <= 100 else "-")
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if run.variant == "odn":
        axes[0].axhline(run.goal_pct, color=GOAL, linestyle="--", label=f"goal {run.goal_pct:g} %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return caption(figure, run)


def depth_choice(depths: pd.DataFrame, run: AnyRun, printed: PrintedRow | None = None, recommended: int = 0) -> Figure:
    """Draw validation accuracy of every depth tried against size, MACs and, if measured, latency.

    Marked are the goal, and the depth that the search chose, or the `recommended` one if given.
    """
    tried = depths.dropna(subset=["val_acc_pct"])
    chosen = tried[tried["depth"] == recommended if recommended else tried["chosen"]]
    ring = "recommended" if recommended else "chosen"
    columns = {"size_mb": "size on disk (MB)", "macs_m": "MACs (millions)", "latency_ms": "latency, one image (ms)"}
    columns = {column: label for column, label in columns.items() if column in tried}
    figure, axes = plt.subplots(1, len(columns), figsize=(WIDTH, 3.1), layout="constrained", sharey=True)
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        axis.plot(tried[column], tried["val_acc_pct"], "o-", color=FOUND, label="best of each depth (its number)")
        axis.plot(chosen[column], chosen["val_acc_pct"], "o", color=CHOSEN, ms=12, fillstyle="none", label=ring)
        if printed and run.width == 64 and run.architecture == printed.architecture:
            axis.axvline(getattr(printed.odn, column), color=PAPER, linestyle=":", label="the paper's")
        for depth, *place in zip(tried["depth"], tried[column], tried["val_acc_pct"], strict=True):
            axis.annotate(depth, place, (0, 10), textcoords="offset points", fontsize=8, ha="center")
        axis.axhline(run.goal_pct, color=GOAL, linestyle="--", label=f"goal {run.goal_pct:g} %")
        axis.set(xlabel=label, xmargin=0.1, ymargin=0.15)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlim(left=-0.03 * tried[column].max())  # from 0, and room for the first depth
    axes[0].set_ylabel("validation accuracy (%)")
    width = ", width 64" * (run.width != 64)
    title = [f"the paper chose depth {printed.odn.depth} of {printed.full.depth}{width}"] if printed else []
    if round(tried["val_acc_pct"].max(), run.search_decimals) < run.goal_pct:
        title.append("no depth met the goal")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=2, title="; ".join(title) or None)
    return caption(figure, run)
