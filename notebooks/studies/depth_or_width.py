"""Notebook 14: is depth the right thing to adapt? Fronts of accuracy against bytes, of networks trained alike.

All depths of the paper's networks at full width and of narrower ones, beside a chain that halves the image at every
block. What each was trained with stands in `kind`; rule `equal`, all training images, real ones.
"""

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from odnlib import recipes
from odnlib.files import write_rounded_csv
from odnlib.paper import TABLE_1
from studies import common, plots

ONE_SIZE = {"target_pct": 100.0, "tolerance_pct": 0.0}  # no goal: each network is trained for itself
OF_NETWORK = {"architecture", "width", "first_depth", "last_depth", *ONE_SIZE, "bfloat16", "threads"}
MADE_SMALL = {"train_images", "depth_epochs"}  # by a notebook's usual settings, with stand-ins
FULL_WIDTH, NARROW, CHAIN, LONGER = "full width", "ResNet-18, narrow", "halving chain", "halving chain, longer"
_, _, _, _, _, BROWN, PINK, _, _, SKY = sns.color_palette("colorblind")  # the others have their meaning in `plots`
KINDS = {FULL_WIDTH: ("o", plots.FOUND), NARROW: ("s", BROWN), CHAIN: ("^", PINK), LONGER: ("v", SKY)}
SMALL = [("resnet18", 8, 1), ("resnet18", 8, 2), ("chain", 8, 1), ("chain", 8, 2), ("chain", 8, 3)]  # for `smoke`
NETWORKS = [(name, width, depth) for name in ("resnet18", "chain") for width in (16, 32) for depth in (1, 2, 3)]
NETWORKS += [("chain", 8, 2), ("chain", 8, 3)]  # architecture, width, depth; those of full width are Table I's rows
NETWORK = ["row", "kind", "architecture", "width", "depth"]
COLUMNS = [*NETWORK, "seed", "params", "size_mb", "macs_m", "val_acc_pct", "test_acc_pct", "epochs", "settings"]


def planned(profile: str, rows: Iterable[str], seeds: Iterable[int], overrides: dict) -> list[recipes.Recipe]:
    """Return the recipes of this study's networks, each by itself, per dataset and seed; or RecipeError."""
    networks = SMALL if profile == "smoke" else NETWORKS
    return recipes.resolve_all(
        {"row": row, "profile": profile, "rule": "equal", "seed": seed, "architecture": name, "width": width}
        | {"first_depth": depth, "last_depth": depth}
        | ONE_SIZE
        | overrides
        for row, (name, width, depth), seed in product(rows, networks, seeds)
    )


def kind(run: object) -> str:
    """Return the kind (a key of KINDS) of a run's networks; empty if they are none of this study's."""
    told = run.changed.keys() - OF_NETWORK - (MADE_SMALL if run.embedded else set())
    if run.rule != "equal" or (run.goal_pct < 100 and run.width != 64):
        return ""
    if run.architecture == "chain":
        return LONGER if told else CHAIN
    if told:
        return ""
    return NARROW if run.width < 64 else FULL_WIDTH * (run.architecture == TABLE_1[run.row].architecture)


def table(results_dir: Path | str, profile: str = "*") -> pd.DataFrame:
    """Return one line per network and seed, of every depth tried; only depths that were chosen have a test accuracy.

    Of stand-in images only in profile `smoke`.
    """
    lines = []
    for run in common.finished(results_dir, profile, "odn").itertuples():
        if (name := kind(run)) and run.embedded == (profile == "smoke"):
            tried = pd.read_csv(run.folder / "depths.csv").query("epochs > 0").drop(columns="warmup_val_acc_pct")
            tried["test_acc_pct"] = tried["chosen"].map({True: run.test_acc_pct})
            about = {x: getattr(run, x) for x in ("row", "architecture", "width", "seed", "settings")}
            lines.append(tried.assign(kind=name, **about))
    return pd.concat([pd.DataFrame(columns=COLUMNS), *lines])[COLUMNS].sort_values(
        [*NETWORK, "seed"], ignore_index=True
    )


def networks(lines: pd.DataFrame) -> pd.DataFrame:
    """Return one line per network: means over its seeds, `n` of them, spread `std` of the validation accuracy."""
    seeds = lines.groupby([*NETWORK, "epochs"], sort=False)
    means = seeds[["params", "size_mb", "macs_m", "val_acc_pct", "test_acc_pct"]].mean()
    return means.assign(std=seeds["val_acc_pct"].std(), n=seeds.size()).reset_index()


def answers(lines: pd.DataFrame) -> pd.DataFrame:
    """Return per dataset, at the bytes of the paper's network at its depth, the best network by depth and by chain.

    The best is the most accurate on validation that is not larger; by depth: the paper's architecture at full width.
    """
    found, answered = networks(lines), []
    for row, of_row in found.groupby("row"):
        fits = of_row[of_row["size_mb"] <= TABLE_1[row].odn.size_mb * 1.003]  # the file format adds a little
        best = {name: x.loc[x["val_acc_pct"].idxmax()] for name, x in fits.groupby("kind")}
        if best.keys() >= {FULL_WIDTH, CHAIN}:
            depth, chain = best[FULL_WIDTH], best[CHAIN]
            line = {"row": row, "bytes_mb": TABLE_1[row].odn.size_mb, "gain_pts": chain.val_acc_pct - depth.val_acc_pct}
            for name, of in (("depth", depth), ("chain", chain)):
                told = ("architecture", "width", "depth", "size_mb", "macs_m", "val_acc_pct", "test_acc_pct", "n")
                line |= {f"{name}_{x}": of[x] for x in told}
            answered.append(line)
    return pd.DataFrame(answered)


def verdict(lines: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason) on our own question: is depth the right thing to adapt? Most datasets decide."""
    answered = answers(lines)
    if answered.empty:
        return "not measured", "no dataset has both networks at full width and the chain"
    told = []
    for line in answered.to_dict("records"):
        of = [
            f"{name} {line[f'{name}_val_acc_pct']:.2f} % ({line[f'{name}_size_mb']:.2f} MB, "
            f"{line[f'{name}_macs_m']:.1f} million multiply-accumulates, n = {line[f'{name}_n']})"
            for name in ("depth", "chain")
        ]
        told.append(f"{TABLE_1[line['row']].title}, at most {line['bytes_mb']:.2f} MB, on validation: {', '.join(of)}")
    gains = answered["gain_pts"].round(2)
    verdict = common.FAILS if (gains > 0).mean() > 0.5 else common.HOLDS if (gains < 0).mean() > 0.5 else common.OPEN
    return verdict, "; ".join(told)


def figure(lines: pd.DataFrame) -> Figure:
    """Draw validation accuracy against bytes and multiply-accumulates, a dataset a column, with the paper's points."""
    found, rows = networks(lines), [row for row in TABLE_1 if row in set(lines["row"])]
    drawn, axes = plt.subplots(2, len(rows), figsize=(plots.WIDTH, 5.4), layout="constrained", squeeze=False)
    for column, row in zip(axes.T, rows, strict=True):
        printed = TABLE_1[row]
        for axis, size, label in zip(
            column, ("size_mb", "macs_m"), ("MB", "million multiply-accumulates"), strict=True
        ):
            for name, (marker, colour) in KINDS.items():
                of_kind = found[(found["row"] == row) & (found["kind"] == name)].sort_values(size)
                style = {"color": colour, "marker": marker, "capsize": 3, "label": name, "ls": "none", "ms": 6}
                axis.errorbar(of_kind[size], of_kind["val_acc_pct"], of_kind["std"], **style)
            for paper, place in (("its depth", printed.odn), ("whole", printed.full)):
                axis.plot(getattr(place, size), place.test_acc_pct, "*", color="0.2", ms=11, mfc="none")
                axis.annotate(f"paper, {paper}", (getattr(place, size), place.test_acc_pct), fontsize=8, ha="center",
                              xytext=(0, -14), textcoords="offset points")  # fmt: skip
            axis.set(xscale="log", xlabel=label, ylabel="accuracy (%)")
            axis.xaxis.set(major_locator=LogLocator(subs=(1, 3)), major_formatter="{x:g}", minor_formatter="")
            axis.margins(0.12)
        column[0].set_title(printed.title)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(KINDS))
    sns.despine(drawn)
    ours = "Ours: validation accuracy, rule equal, means of the seeds with their standard deviation"
    return plots.small_print(drawn, f"{ours}; paper: printed test accuracy")


def write(results_dir: Path | str, profile: str) -> None:
    """Write depth_or_width.csv, one line per network, depth_or_width_answers.csv, and the figure, where this
    profile has networks of the study's own.
    """
    lines, folder = table(results_dir, profile if profile == "smoke" else "*"), Path(results_dir) / profile
    if (table(results_dir, profile)["kind"] != FULL_WIDTH).any():
        write_rounded_csv(folder / "depth_or_width.csv", networks(lines))
        write_rounded_csv(folder / "depth_or_width_answers.csv", answers(lines))
        plots.save(figure(lines), folder / "figures" / "depth_or_width.png")
