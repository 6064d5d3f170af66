"""Figures drawn from data frames; of results only the authors' own training curves are read here."""

import io
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image
from torch import Tensor

from odnlib.data import Split
from odnlib.files import ROOT, write_atomically
from odnlib.paper import TABLE_1, PrintedRow
from odnlib.recipes import Recipe, describe_settings, stage_title

plt.rcdefaults()  # whatever a matplotlibrc says
sns.set_theme(context="paper", style="whitegrid", palette="colorblind")
# Inches: a printed page's, so that no letter is smaller there than drawn, 8 points or more.
FIGURE_WIDTH = 7.2
# What they mean where they stand for networks (datasets, in notebook 09, have these colours in turn).
COLOR_FOUND, COLOR_PAPER, COLOR_GOAL, COLOR_CHOSEN, COLOR_WHOLE, *_, COLOR_OTHER = sns.color_palette("colorblind")
COLOR_TRAINING = "0.6"
STAND_IN_NOTICE = "embedded stand-in images, narrow network: an illustration, no reproduction"
RunOrRecipe = Recipe | SimpleNamespace  # a finished run as it was recorded (`recipes.read_run`)


def architecture_title(architecture: str) -> str:
    """Return an architecture as papers write it: "ResNet-18", "WRN-16-8", "MobileNet v3 large"."""
    words = architecture.replace("resnet", "ResNet-").replace("mobilenet", "MobileNet")
    return words.replace("wrn_", "WRN-").replace("_", "-" if "wrn" in words else " ")


def describe_evidence(run: RunOrRecipe, seeds: str = "", architectures: str = "", varied: tuple[str, ...] = ()) -> str:
    """Return as text what a table or figure of a run or recipe is evidence of: dataset, architecture, width, rule,
    settings, seeds, images. `seeds` and `architectures` are texts for several; `varied` names settings to leave out.
    """
    overridden = run.overridden if isinstance(run, Recipe) else run.changed
    untold = {"architecture", "width", "threads", *varied}  # the first two have words of their own below
    settings = describe_settings({name: value for name, value in overridden.items() if name not in untold})
    settings = re.sub("target pct 100.0, tolerance pct 0.0", "no goal", settings)
    settings = re.sub(r"(\w+) pct ([\d.]+)", r"\1 \2 %", settings)
    own, narrow = run.row not in TABLE_1, run.width != 64
    dataset = "" if own or "row" in varied else f"{TABLE_1[run.row].title}, "
    kind = STAND_IN_NOTICE if run.embedded else f"{'own' if own else 'real'} images, profile {run.profile}"
    if narrow and not run.embedded:
        kind += ", narrow network" + ": a trend, not a row of Table\u00a0I" * (not own)
    rule = (
        run.rule
        + " (an upper bound of the depth)" * (run.rule == "fast" and run.variant == "odn")
        + " with " * bool(settings)
        + settings
    )
    network = f"{architectures or architecture_title(run.architecture)}, width {run.width}{' of 64' * narrow}"
    return f"{dataset}{network}, rule {rule}, {seeds or f'seed {run.seed}'} - {kind}"


def make_axes(rows: int, columns: int, height: float, **options: object) -> tuple[Figure, np.ndarray]:
    """Return a new figure of a page's width, `height` inches high, and its array of axes; options of `plt.subplots`."""
    return plt.subplots(rows, columns, figsize=(FIGURE_WIDTH, height), layout="constrained", **options)


def legend_above(figure: Figure, columns: int, **options: object) -> None:
    """Set a legend with the entries of all axes above a figure, in `columns`; options of `Figure.legend`."""
    axes = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in figure.axes]
    entries = {label: handle for of_axis in axes for handle, label in of_axis}
    figure.legend(entries.values(), entries, loc="outside upper center", ncols=columns, **options)


def label_log_axis(axis: Axis, *multiples: int) -> None:
    """Label a logarithmic x or y axis with plain numbers at powers of ten and at `multiples` of them."""
    axis.set(major_locator=LogLocator(subs=(1, *multiples)), major_formatter="{x:g}", minor_formatter="")


def write_below(figure: Figure, text: str) -> Figure:
    """Write a small grey text, wrapped, below a figure, and return the figure."""
    width = int(figure.get_figwidth() * 15)  # characters that fit
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=8, color="0.35")
    return figure


def write_caption(figure: Figure, run: RunOrRecipe, *others: str, varied: tuple[str, ...] = ()) -> Figure:
    """Write `describe_evidence` of a run below a figure, and return the figure; further arguments as there."""
    return write_below(figure, describe_evidence(run, *others, varied=varied))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG to `path`, atomically, and close it; with 256 colours it takes a third of the size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(drawn := io.BytesIO(), format="png", dpi=200)
    plt.close(figure)
    picture = Image.open(drawn).convert("RGB").quantize(256)
    write_atomically(path, lambda temporary: picture.save(temporary, format="png", optimize=True))


def mark_training_stages(axis: Axes, epochs: pd.DataFrame, titled: bool = True) -> None:
    """Mark where stages begin in epochs.csv by vertical lines on an axis against the epoch, titled above if asked."""
    axis.grid(False, axis="x")
    searched, place = set(epochs.loc[epochs["stage"] == "depth", "depth"]), -math.inf
    for start in epochs[epochs["stage_epoch"] == 1].itertuples():
        axis.axvline(start.epoch - 0.5, color="0.4", linewidth=1, linestyle=":", zorder=1)
        place = max(start.epoch, place + 0.13 * max(len(epochs), axis.get_xlim()[1]))
        unsearched = start.stage == "finetune" and start.depth not in searched  # the last: nothing is left to search
        title = f"depth {start.depth}, last" if unsearched else stage_title(start.stage, start.depth)
        if titled:
            axis.text(place, 1.02, title, rotation=40, fontsize=8, transform=axis.get_xaxis_transform())


def draw_images(images: Sequence[Tensor], titles: Sequence[object]) -> Figure:
    """Draw images (C, H, W), uint8, side by side with a title above each."""
    bare = {"frame_on": False, "xticks": [], "yticks": []}
    size = (FIGURE_WIDTH, 0.3 + FIGURE_WIDTH / len(images) + 0.14 * str(titles[0]).count("\n"))
    figure, axes = plt.subplots(1, len(images), figsize=size, layout="constrained", subplot_kw=bare, squeeze=False)
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        axis.imshow(image.cpu().permute(1, 2, 0).squeeze(), cmap="gray")
        axis.set_title(title, fontsize=8, parse_math=False)  # a class may be called $5
    return figure


def draw_samples(split: Split, count: int = 12) -> Figure:
    """Draw `count` images of a split side by side with their labels above, every class in turn."""
    names = split.dataset.class_names or range(split.dataset.classes)
    labels = pd.Series(split.labels.cpu())
    numbers = labels.groupby(labels).cumcount().sort_values(kind="stable").index[:count]
    return draw_images([split.images[number] for number in numbers], [names[labels[number]] for number in numbers])


def draw_structure(depths: pd.DataFrame, run: RunOrRecipe, printed: PrintedRow) -> Figure:
    """Draw parameters and MACs, in millions, of `rows.measure_depths` against depth; at width 64 Table I's two, too."""
    figure, axes = make_axes(1, 2, 2.7)
    depths, paper = depths.assign(params_m=depths["params"] / 1e6), pd.DataFrame([printed.odn, printed.full])
    columns = {"params_m": "parameters (millions)", "macs_m": "MACs per image (millions)"}
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        axis.plot(depths["depth"], depths[column], "o-", color=COLOR_FOUND, label="this network")
        if run.width == 64 and run.architecture == printed.architecture:
            points = paper["depth"], paper[column]
            axis.plot(*points, "D", color=COLOR_PAPER, ms=8, fillstyle="none", mew=1.5, label="paper, Table I")
        axis.set(xlabel="depth (residual blocks)", ylabel=label, yscale="log", xticks=depths["depth"])
        label_log_axis(axis.yaxis, 2, 5)
        axis.legend()
    return write_below(
        figure, f"{architecture_title(run.architecture)}, width {run.width}{' of 64' * (run.width < 64)}"
    )


def draw_curves(axis: Axes, epochs: pd.DataFrame, column: str, line: str, titled: bool = True) -> None:
    """Draw training and validation `column` (acc_pct or loss) of epochs.csv by epoch on an axis, with stages marked."""
    color = COLOR_WHOLE if "full" in set(epochs["stage"]) else COLOR_FOUND
    axis.plot(epochs["epoch"], epochs[f"train_{column}"], line, color=COLOR_TRAINING, label="training")
    axis.plot(epochs["epoch"], epochs[f"val_{column}"], line, color=color, label="validation")
    mark_training_stages(axis, epochs, titled)


def read_authors_log(run: RunOrRecipe) -> pd.DataFrame | None:
    """Return the authors' own validation accuracy and training loss by depth and epoch (single runs, from their
    notebooks' outputs, results/reference) that a run can be compared with. There are none for narrow networks, stand-in
    images, rule `equal`, EMNIST and CIFAR-10: None.
    """
    file = ROOT / "results" / "reference" / f"{run.row}.csv"
    if run.width != 64 or run.embedded or run.rule not in ("released", "printed") or not file.exists():
        return None
    log = pd.read_csv(file)
    log = log[log["depth"] <= (run.last_depth or math.inf)]
    return log.assign(epoch=log["epoch"] + run.warmup_epochs)  # it begins after the warm-up


def draw_authors_curves(axes: Sequence[Axes], run: RunOrRecipe) -> bool:
    """Draw `read_authors_log` on two axes, behind a search's curves if there are any; return whether there is a log."""
    if (log := read_authors_log(run)) is None:
        return False
    for axis, column, height in zip(axes, ("val_acc_pct", "train_loss"), (0.02, 0.5), strict=True):
        own = axis.get_xlim(), axis.get_ylim()
        label = "authors' log: validation accuracy, training loss"
        axis.plot(log["epoch"], log[column], color=COLOR_PAPER, linewidth=0.8, alpha=0.6, zorder=0, label=label)
        for depth, start in log.groupby("depth")["epoch"].min().add(1).iloc[1:].items():
            place = {"transform": axis.get_xaxis_transform(), "fontsize": 8, "color": COLOR_PAPER, "rotation": 90}
            place["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
            axis.text(start, height, f"log: depth {depth}", va="bottom", ha="right", **place)
        axis.set(xlim=(own[0][0], max(own[0][1], log["epoch"].max() + 2)), ylim=own[1])
    return True


def stretch_near_100(axis: Axes, lowest_pct: float) -> None:
    """Scale an axis of accuracies in %, from `lowest_pct` on, by the logarithm of what is missing to 100."""

    def scale(accuracy: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(100.3 - accuracy, 1e-3))

    axis.set_yscale("function", functions=(scale, lambda place: 100.3 - np.exp(-place)))
    axis.set(ylim=(lowest_pct, 100.1), ylabel="accuracy (%)\n(stretched towards 100)")
    axis.set_yticks([x for x in (0, 50, 80, 90, 95, 98, 99, 100) if x >= lowest_pct])


def draw_history(epochs: pd.DataFrame, run: RunOrRecipe) -> Figure:
    """Draw accuracy and loss in a run's epochs.csv against the epoch, stages marked (compare the paper's Figure 3)."""
    figure, axes = make_axes(1, 2, 3.1)
    for axis, label, column in zip(axes, ("accuracy (%)", "loss"), ("acc_pct", "loss"), strict=True):
        draw_curves(axis, epochs, column, ".-" if len(epochs) <= 100 else "-")
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if run.variant == "odn":
        axes[0].axhline(run.goal_pct, color=COLOR_GOAL, linestyle="--", label=f"goal {run.goal_pct:g} %")
    accuracies = epochs[["train_acc_pct", "val_acc_pct"]].to_numpy()
    if accuracies.max(initial=0) > 97:  # else nothing is hidden up there
        stretch_near_100(axes[0], max(0, accuracies.min() - 5))
    legend_above(figure, 3)
    return write_caption(figure, run)


def draw_depth_choice(depths: pd.DataFrame, run: RunOrRecipe, printed: PrintedRow) -> Figure:
    """Draw validation accuracy of every depth in depths.csv against size and MACs, with the goal, the depth chosen and,
    at width 64, Table I's sizes.
    """
    tried = depths.dropna(subset=["val_acc_pct"])
    chosen = tried[tried["chosen"]]
    columns = {"size_mb": "size on disk (MB)", "macs_m": "MACs (millions)"}
    figure, axes = make_axes(1, 2, 3.1, sharey=True)
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        axis.plot(tried[column], tried["val_acc_pct"], "o-", color=COLOR_FOUND, label="best of each depth (its number)")
        ring = {"color": COLOR_CHOSEN, "ms": 12, "fillstyle": "none", "label": "chosen"}
        axis.plot(chosen[column], chosen["val_acc_pct"], "o", **ring)
        if run.width == 64 and run.architecture == printed.architecture:
            axis.axvline(getattr(printed.odn, column), color=COLOR_PAPER, linestyle=":", label="the paper's network")
        for depth, *place in zip(tried["depth"], tried[column], tried["val_acc_pct"], strict=True):
            look = {"fontsize": 8, "ha": "center", "path_effects": [withStroke(linewidth=2.5, foreground="white")]}
            axis.annotate(depth, place, (0, 8), textcoords="offset points", **look)
        axis.axhline(run.goal_pct, color=COLOR_GOAL, linestyle="--", label=f"goal {run.goal_pct:g} %")
        axis.set(xlabel=label, xmargin=0.1, ymargin=0.2)  # room for the numbers above the points
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlim(left=-0.03 * tried[column].max())  # from 0, and room for the first depth
    axes[0].set_ylabel("validation accuracy (%)")
    width = ", width 64" * (run.width != 64)
    title = f"the paper chose depth {printed.odn.depth} of {printed.full.depth}{width}"
    if round(tried["val_acc_pct"].max(), run.search_decimals) < run.goal_pct:
        title += "; no depth met the goal"
    legend_above(figure, 2, title=title)
    return write_caption(figure, run)
