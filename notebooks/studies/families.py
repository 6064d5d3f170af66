"""Notebook 11: does the method work with other networks (Section I)? One search with each, on the same images."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from odnlib import metrics, models, recipes
from odnlib.data import DATASETS
from studies import common, plots
from studies.families_networks import FAMILIES, register

STUDY_KEYS = ["profile", "row", "rule", "settings"]
VARIED = {"architecture"}
COLUMNS = [*STUDY_KEYS, "architecture", "seed", "depth", "met_goal", "val_acc_pct", "test_acc_pct", "params", "size_mb"]
COLUMNS += ["train_tmacs", "of", "depth_share", "goal_pct", "size_share", "not_comparable", "processor", "folder"]


def planned(profile: str, row: str, seeds: Iterable[int], overrides: dict) -> list[recipes.Recipe]:
    """Return the recipes of a search by rule `equal` with each architecture and seed; RecipeError if invalid."""
    register()
    same = {"row": row, "profile": profile, "rule": "equal"}
    every = [dict(**same, seed=seed, **overrides | {"architecture": name}) for name in FAMILIES for seed in seeds]
    return recipes.resolve_all(every)


def structure(row: str) -> pd.DataFrame:
    """Return a line per architecture at full width: blocks, parameters, MACs; MB of its first quarters, too."""
    register()
    lines, dataset = [], DATASETS[row]
    for name in FAMILIES:
        network, parts = models.build(name, dataset.image_shape[0], dataset.classes), {}
        for part in (0.25, 0.5, 0.75, 1.0):
            cut = network.truncate(round(part * network.max_depth))
            parts[part] = metrics.measure_size_and_macs(cut, dataset.image_shape)
        line = {"architecture": name, "blocks": network.max_depth}
        line |= {"params_m": parts[1.0]["params"] / 1e6, "macs_m": parts[1.0]["macs_m"]}
        lines.append(line | {f"MB at {part:.0%}": cut["size_mb"] for part, cut in parts.items()})
    return pd.DataFrame(lines)


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return one line per search of the architecture studies, with the shares of blocks and bytes that were enough.

    Searches that differ only in architecture and seed form a study if it has three architectures.
    """
    runs = common.finished(results_dir, profile, "odn", VARIED)
    if runs.empty:
        return runs
    runs = runs[runs["architecture"].isin(FAMILIES) & (runs["goal_pct"] < 100)]
    runs = runs[runs.groupby(STUDY_KEYS)["architecture"].transform("nunique") >= 3].rename(columns={"max_depth": "of"})
    runs["depth_share"], runs["size_share"] = runs["depth"] / runs["of"], runs["size_mb"] / runs["full_size_mb"]
    return runs[COLUMNS].sort_values([*STUDY_KEYS, "architecture", "seed"], ignore_index=True)


def verdict(lines: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): did every architecture meet the goal before its last block, with every seed?"""
    study = common.most_telling(lines, STUDY_KEYS)
    enough = study["met_goal"] & (study["depth"] < study["of"])
    per, sizes_pct = enough.groupby(study["architecture"]).mean(), 100 * study.loc[enough, "size_share"]
    first, seeds = study.iloc[0], study.groupby("architecture")["seed"].nunique()
    why = f"{(per == 1).sum()} of {len(per)} architectures met {first['goal_pct']:g} % on validation before their last "
    why += f"block with all seeds (n = {seeds.min()} to {seeds.max()} each, {len(study)} searches, {first['row']}, "
    why += f"rule {first['rule']}, on {first['processor']})"
    if never := list(per[per == 0].index):
        why += f", never {', '.join(never)}"
    if len(sizes_pct):
        why += f"; of the bytes {sizes_pct.median():.1f} % were enough in the median "
        why += f"({sizes_pct.min():.1f} % to {sizes_pct.max():.1f} %)"
    together = common.HOLDS if (per == 1).all() else common.FAILS if (per == 0).any() else common.OPEN
    return common.qualified(together, why, first["not_comparable"])


def figure(lines: pd.DataFrame) -> Figure:
    """Draw depth found, bytes and test accuracy of each architecture, a point per seed, for one study of `table`."""
    run, names = recipes.read_run(lines["folder"].iloc[0]), list(lines["architecture"].unique())
    drawn, axes = plt.subplots(1, 3, figsize=(plots.WIDTH, 1.1 + 0.28 * len(names)), layout="constrained", sharey=True)
    place = lines["architecture"].map(names.index) + 0.16 * (lines["seed"].rank(method="dense") - 2)
    columns = {
        "depth (% of all blocks)": 100 * lines["depth_share"],
        "bytes (% of the whole's)": 100 * lines["size_share"],
        "test accuracy (%)": lines["test_acc_pct"],
    }
    met, goal = lines["met_goal"], f"met: {run.goal_pct:g} % on validation"
    kinds = (met, "o", plots.FOUND, f"goal {goal}"), (~met, "X", "0.5", f"goal not {goal}")
    for axis, (label, percent) in zip(axes, columns.items(), strict=True):
        for shown, marker, color, title in kinds:
            if shown.any():
                axis.plot(percent[shown], place[shown], marker, color=color, label=title, ms=5)
        axis.set_xlabel(label)
    axes[0].set(xlim=(0, 105), yticks=range(len(names)), yticklabels=map(plots.network_title, names))
    axes[0].invert_yaxis()
    axes[1].set_xscale("log")
    axes[1].xaxis.set(major_locator=LogLocator(subs=(1, 3)), major_formatter="{x:g}", minor_formatter="")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return plots.caption(drawn, run, common.seeds_of(lines), f"{len(names)} architectures")


def write(results_dir: Path | str, profile: str) -> None:
    """Write families.csv for the architecture studies of this profile, and a figure for each."""
    common.write_study(results_dir, table(results_dir, profile), "families", STUDY_KEYS, figure)
