"""Does the method work with other networks (Section I)? One search with each, on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from odnlib import metrics, results
from odnlib.data import DATASETS
from odnlib.models import MultiExitNetwork
from odnlib.recipes import Recipe, resolve
from odnlib.studies.trend import settings
from odnlib.verdict import comparison

NAMED = (  # by the paper, which does not try them
    "resnet101", "wrn_40_2", "wrn_16_8", "wrn_28_10",
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
)  # fmt: skip
SMOKE = {"train_images": 600, "target_pct": 75.0}  # what profile smoke overrides, to be done soon
FEWEST = 3  # architectures searched alike that make a study
SAME = ("profile", "row", "protocol", "settings", "architecture", "seed", "depth", "met_goal", "val_acc_pct")
SAME += ("test_acc_pct", "params", "size_mb", "train_tmacs")  # of a run, as columns of the table


def planned(
    profile: str, row: str, seeds: Iterable[int], overrides: dict, architectures: Iterable[str] = NAMED
) -> list[Recipe]:
    """A search by `fast` with each architecture and seed.

    Raises:
        RecipeError: see `recipes.resolve`.
    """
    wanted = [(name, seed) for name in architectures for seed in seeds]
    return [resolve(row, "odn", profile, "fast", seed, **overrides | {"architecture": name}) for name, seed in wanted]


def structure(row: str, architectures: Iterable[str] = NAMED) -> pd.DataFrame:
    """What each network is at full width, and its bytes at a quarter, half and three quarters of its blocks."""
    lines, dataset = [], DATASETS[row]
    for name in architectures:
        network = MultiExitNetwork(name, dataset.image_shape[0], dataset.classes)
        whole, line = network.max_depth, {"architecture": name, "blocks": network.max_depth}
        figures = {part: metrics.structure(network.truncate(max(1, round(part * whole))), dataset.image_shape)
                   for part in (0.25, 0.5, 0.75, 1.0)}  # fmt: skip
        line |= {"params_m": figures[1.0]["params"] / 1e6, "macs_m": figures[1.0]["macs_m"]}
        line |= {f"MB at {part:.0%}": figure["size_mb"] for part, figure in figures.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per search out of `comparison.load_runs` of a study: what part of the network was enough.

    A study is made of searches alike in everything but the architecture and the seed, with `FEWEST` or more of `NAMED`.
    """
    if runs.empty:
        return runs
    every = runs[(runs["variant"] == "odn") & (runs["target_pct"] - runs["tolerance_pct"] < 100)].copy()
    every["settings"] = [settings(*names) for names in zip(every["tag"], every["architecture"], strict=True)]
    kinds = every[every["architecture"].isin(NAMED)].groupby(["profile", "row", "protocol", "settings"], sort=False)
    lines = []
    for _, group in kinds:
        for run in group.itertuples() if group["architecture"].nunique() >= FEWEST else ():
            line = {name: getattr(run, name) for name in SAME}
            line |= {"of": run.max_depth, "depth_share": run.depth / run.max_depth}
            line |= {"goal_pct": run.target_pct - run.tolerance_pct}
            line |= {"size_share": run.size_mb / run.full_size_mb, "folder": run.folder}
            reason = comparison.why_not_comparable(run._asdict() | {"tag": run.settings})
            made_by = results.read_json(Path(run.folder) / "provenance.json")
            lines.append(line | {"not_comparable": reason, "processor": made_by["processor"]})
    made = pd.DataFrame(lines)
    return made.sort_values(["settings", "architecture", "seed"], ignore_index=True) if lines else made


def verdict(lines: pd.DataFrame) -> tuple[str, str]:
    """Whether a part of every network met the goal; lines of `table` of one study."""
    enough = lines["met_goal"] & (lines["depth"] < lines["of"])
    per, shares = enough.groupby(lines["architecture"], sort=False).mean(), lines.loc[enough, "size_share"]
    first, seeds = lines.iloc[0], lines["seed"].nunique()
    said = (
        f"{(per == 1).sum()} of {len(per)} architectures met {first['goal_pct']:g} % on validation before their last "
    )
    said += f"block with all seeds (n = {seeds} each, {len(lines)} searches, {first['row']}, on {first['processor']})"
    if never := list(per[per == 0].index):
        said += f", never {', '.join(never)}"
    if len(shares):
        low, middle, high = (f"{100 * share:.1f} %" for share in (shares.min(), shares.median(), shares.max()))
        said += f"; of the bytes {middle} were enough in the median ({low} to {high})"
    return ("holds" if (per == 1).all() else "does not hold" if (per == 0).any() else "open"), said
