"""Notebook 11: does the method work with other networks (Section I)? One search with each, on the same images."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from odnlib import metrics, models, recipes
from odnlib.data import DATASETS
from studies import common, plots
from studies.common import STUDY_COLUMNS
from studies.families_networks import UNTRIED_ARCHITECTURES, register_architectures

VARIED_SETTINGS = {"architecture", "target_pct"}
PILOT_SEED = 100  # of the whole networks that goals are taken from, and of nothing else
RESULT_COLUMNS = [*STUDY_COLUMNS, "architecture", "seed", "depth", "met_goal", "val_acc_pct", "test_acc_pct", "params"]
RESULT_COLUMNS += ["size_mb", "train_tmacs", "of", "depth_share", "goal_pct", "size_share", "not_comparable"]
RESULT_COLUMNS += ["processor", "folder"]


def plan_recipes(
    profile: str, row: str, seeds: Iterable[int], overrides: dict, networks: Iterable[str] | dict[str, float] = ()
) -> list[recipes.Recipe]:
    """Return the recipes of a search by rule `equal` on a dataset (`row`) with each architecture (`networks`, empty:
    all; a dict also has the target in % of each) and seed; with `overrides` of {"variant": "full"} of whole networks.
    """
    register_architectures()
    same = {"row": row, "profile": profile, "rule": "equal"} | overrides
    asked = networks if isinstance(networks, dict) else dict.fromkeys(networks or UNTRIED_ARCHITECTURES)
    return recipes.resolve_all(
        same | {"architecture": name, "seed": seed} | ({"target_pct": target} if target else {})
        for name, target in asked.items() for seed in seeds
    )  # fmt: skip


def measure_architectures(row: str) -> pd.DataFrame:
    """Return a table of the architectures at width 64: blocks, params_m, macs_m, and the MB of their first quarters."""
    register_architectures()
    measured, dataset = [], DATASETS[row]
    for name in UNTRIED_ARCHITECTURES:
        network, parts = models.build(name, dataset.image_shape[0], dataset.classes), {}
        for part in (0.25, 0.5, 0.75, 1.0):
            cut = network.truncate(round(part * network.max_depth))
            parts[part] = metrics.measure_size_and_macs(cut, dataset.image_shape)
        sizes = {f"MB at {part:.0%}": cut["size_mb"] for part, cut in parts.items()}
        whole = {"params_m": parts[1.0]["params"] / 1e6, "macs_m": parts[1.0]["macs_m"]}
        measured.append({"architecture": name, "blocks": network.max_depth} | whole | sizes)
    return pd.DataFrame(measured)


def read_results(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return a table (`RESULT_COLUMNS`), one row per search of a profile's studies of at least three architectures,
    with the shares of blocks and bytes that were enough, depth_share and size_share. Of several goals of an
    architecture the highest counts.
    """
    runs = common.read_finished_runs(results_dir, profile, "odn", VARIED_SETTINGS)
    if runs.empty:
        return runs
    runs = runs[runs["architecture"].isin(UNTRIED_ARCHITECTURES) & (runs["goal_pct"] < 100)]
    runs = runs[runs["goal_pct"] == runs.groupby([*STUDY_COLUMNS, "architecture"])["goal_pct"].transform("max")]
    runs = runs[runs.groupby(STUDY_COLUMNS)["architecture"].transform("nunique") >= 3]
    runs = runs.rename(columns={"max_depth": "of"})
    runs["depth_share"], runs["size_share"] = runs["depth"] / runs["of"], runs["size_mb"] / runs["full_size_mb"]
    return runs[RESULT_COLUMNS].sort_values([*STUDY_COLUMNS, "architecture", "seed"], ignore_index=True)


def judge_claim(results: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): did every architecture meet the goal before its last block, with every seed?"""
    study = common.select_strongest_study(results, STUDY_COLUMNS)
    enough = study["met_goal"] & (study["depth"] < study["of"])
    per, sizes_pct = enough.groupby(study["architecture"]).mean(), 100 * study.loc[enough, "size_share"]
    first, seeds = study.iloc[0], study.groupby("architecture")["seed"].nunique()
    why = f"{(per == 1).sum()} of {len(per)} architectures met {describe_goals(study)} before their last "
    n = " to ".join(map(str, dict.fromkeys((seeds.min(), seeds.max()))))
    why += f"block with all seeds (n = {n} each, {len(study)} searches, {first['row']}, "
    why += f"rule {first['rule']}, on {first['processor']}), {(study['depth'] == 1).mean():.0%} of them at the first"
    if never := list(per[per == 0].index):
        why += f", never {', '.join(never)}"
    if len(sizes_pct):
        why += f"; of the bytes {sizes_pct.median():.1f} % were enough in the median "
        why += f"({sizes_pct.min():.1f} % to {sizes_pct.max():.1f} %)"
    together = common.CLAIM_HOLDS if (per == 1).all() else common.CLAIM_FAILS if (per == 0).any() else common.CLAIM_OPEN
    return common.qualify_verdict(together, why, first["not_comparable"])


def describe_goals(results: pd.DataFrame) -> str:
    """Return the goals of one study's `results` as text, e.g. "goals of 81.2 to 84 % on validation"."""
    low, high = results["goal_pct"].min(), results["goal_pct"].max()
    return f"goals of {low:g} to {high:g} % on validation" if low < high else f"the goal of {low:g} % on validation"


def draw_results(results: pd.DataFrame) -> Figure:
    """Draw depth found, bytes and test accuracy of each architecture in one study's `results`, a point per seed."""
    run, names = recipes.read_run(results["folder"].iloc[0]), list(results["architecture"].unique())
    drawn, axes = plots.make_axes(1, 3, 1.1 + 0.28 * len(names), sharey=True)
    place = results["architecture"].map(names.index) + 0.16 * (results["seed"].rank(method="dense") - 2)
    columns = {
        "depth (% of all blocks)": 100 * results["depth_share"],
        "bytes (% of the whole's,\nlogarithmic)": 100 * results["size_share"],
        "test accuracy (%)": results["test_acc_pct"],
    }
    met, goal = results["met_goal"], describe_goals(results)
    kinds = (met, "o", plots.COLOR_FOUND, f"a seed that met {goal}"), (~met, "X", "0.5", f"one that missed {goal}")
    for axis, (label, percent) in zip(axes, columns.items(), strict=True):
        for shown, marker, color, title in kinds:
            if shown.any():
                axis.plot(percent[shown], place[shown], marker, color=color, label=title, ms=5)
        axis.set_xlabel(label)
    goals = results["goal_pct"], results["architecture"].map(names.index)
    axes[2].plot(*goals, "|", color=plots.COLOR_GOAL, ms=14, mew=1.5, label="its goal (on validation)")
    axes[0].set(xlim=(0, 105), yticks=range(len(names)), yticklabels=map(plots.architecture_title, names))
    axes[0].invert_yaxis()
    axes[1].set_xscale("log")
    plots.label_log_axis(axes[1].xaxis, 2, 5)
    plots.legend_above(drawn, 3)
    seeds = common.list_seeds(results) + ", not all with each" * (len(results) < len(names) * results["seed"].nunique())
    return plots.write_caption(drawn, run, seeds, f"{len(names)} architectures", varied=("target_pct",))
