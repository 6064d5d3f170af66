"""The tables that a row's notebook shows: structure per depth, stages ahead, speed, measured beside printed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from odnlib import metrics
from odnlib.data import Dataset
from odnlib.models import MultiExitNetwork
from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe
from odnlib.results import processor, read_json, write_csv
from odnlib.schedule import Stage, next_stage


def structure_per_depth(recipe: Recipe, dataset: Dataset) -> pd.DataFrame:
    """Predicted columns of Table I for every depth, without training: depth, params, size_mb, macs_m, thop_macs_m."""
    network = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    lines = []
    for depth in range(1, recipe.last_depth + 1):
        cut = network.truncate(depth)
        thop = metrics.thop_macs(cut, dataset.image_shape) / 1e6
        lines.append({"depth": depth, **metrics.structure(cut, dataset.image_shape), "thop_macs_m": thop})
    return pd.DataFrame(lines)


def planned_stages(recipe: Recipe) -> list[Stage]:
    """The stages of a run that meets its goal at no depth but the last: the longest it can get."""
    stages, ended = [], None
    while (ended := next_stage(recipe, ended, met_goal=False)) is not None:
        stages.append(ended)
    return stages


def latency(row: str, found: dict[str, tuple[Recipe, Path]], dataset: Dataset) -> pd.DataFrame:
    """Measured speed of a row's full and optimally deep network beside their MACs, batch 1 and 128, on the CPU.

    Speed does not depend on the weights, so fresh networks of the found depths serve. Measured once; kept in the run
    folder of the search as latency.csv.

    Args:
        found: variant -> (recipe, folder of the finished run).
    """
    file = found["odn"][1] / "latency.csv"
    if file.exists():
        return pd.read_csv(file)
    networks, macs_m = {}, {}
    for variant, (recipe, folder) in found.items():
        whole = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        networks[variant] = whole.truncate(read_json(folder / "result.json")["depth"])
        networks[variant].to(memory_format=torch.channels_last)
        macs_m[variant] = metrics.macs(networks[variant], dataset.image_shape) / 1e6
    lines = []
    for batch in (1, 128):
        taken = metrics.latency_ms(networks, dataset.image_shape, batch)
        line = {"row": row, "width": found["odn"][0].width, "batch": batch, "threads": torch.get_num_threads()}
        line |= {f"{variant}_ms": milliseconds for variant, milliseconds in taken.items()}
        ratios = {"latency_ratio": taken["full"] / taken["odn"], "macs_ratio": macs_m["full"] / macs_m["odn"]}
        lines.append(line | ratios | {"processor": processor()})
    write_csv(file, lines)
    return pd.read_csv(file)


def comparison(row: str, results: dict[str, dict], profile: str) -> pd.DataFrame:
    """Measured beside printed for one row; `results` maps variant to its result.json."""
    printed = TABLE_1[row]
    cells = {"depth": "depth", "params (M)": "params_m", "size (MB)": "size_mb", "MACs (M)": "macs_m"}
    cells["test accuracy (%)"] = "test_acc_pct"
    lines = []
    for variant, result in results.items():
        measured = result | {"params_m": result["params"] / 1e6}
        for title, cell in cells.items():
            paper = getattr(getattr(printed, variant), cell)
            lines.append((variant, title, measured[cell], paper, measured[cell] - paper))
    if {"odn", "full"} <= results.keys():
        saved = 100 * (1 - results["odn"]["size_mb"] / results["full"]["size_mb"])
        paper = printed.size_reduction_pct
        lines.append(("odn", "size reduction (%)", saved, paper, saved - paper))
    columns = ["variant", "quantity", f"measured ({profile})", "paper", "difference"]
    return pd.DataFrame(lines, columns=columns).set_index(["variant", "quantity"])
