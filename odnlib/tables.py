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


def front(recipe: Recipe, folder: Path, dataset: Dataset) -> pd.DataFrame:
    """What a finished search offers: its depths.csv, and latency_ms of one image on the CPU for every depth tried and
    for the whole network. Measured once, with fresh weights; kept in the run's folder as front.csv.
    """
    file = folder / "front.csv"
    if not file.exists():
        lines = pd.read_csv(folder / "depths.csv")
        whole = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        timed = sorted({*lines.dropna(subset="val_acc_pct")["depth"], recipe.last_depth})
        networks = {depth: whole.truncate(depth).to(memory_format=torch.channels_last) for depth in timed}
        taken = metrics.latency_ms(networks, dataset.image_shape, batch=1)
        lines["latency_ms"] = lines["depth"].map(taken)
        write_csv(file, lines.assign(threads=torch.get_num_threads(), processor=processor()))
    return pd.read_csv(file)


def recommended(offered: pd.DataFrame, result: dict) -> int:
    """The depth to take: the first that met the goal, or if none did, the one of the best validation accuracy."""
    return result["depth"] if result["met_goal"] else int(offered.loc[offered["val_acc_pct"].idxmax(), "depth"])


def recommendation(recipe: Recipe, offered: pd.DataFrame, result: dict, validation_images: int) -> str:
    """What to take, in words; `offered` as `front` gives it."""
    at, whole = offered.set_index("depth", drop=False).loc[recommended(offered, result)], offered.iloc[-1]
    n = validation_images + 4  # Agresti and Coull (1998): sensible for few images, and at 100 %
    p = (at["val_acc_pct"] / 100 * validation_images + 2) / n
    sure = 196 * (p * (1 - p) / n) ** 0.5
    has = "{:.1f} % on validation, {:.2f} MB, {:.0f} million multiply-accumulates, {:.1f} ms an image"
    has = has.format(*at[["val_acc_pct", "size_mb", "macs_m", "latency_ms"]])
    why = f"the shallowest that has your {recipe.goal_pct:g} %" if result["met_goal"] else "the most accurate one"
    said = [f"Take depth {at['depth']} of {whole['depth']}, {why}: {has}."]
    if at["depth"] != whole["depth"]:
        smaller, faster = 100 * (1 - at["size_mb"] / whole["size_mb"]), whole["latency_ms"] / at["latency_ms"]
        said.append(f"It is {smaller:.1f} % smaller and {faster:.1f} times as fast as depth {whole['depth']}.")
    if not result["met_goal"]:
        said.insert(0, f"No depth reached your {recipe.goal_pct:g} %.")
        said.append("More or larger images, a wider network or more epochs may reach it - or a lower target is right.")
    said.append(f"From {validation_images} validation images an accuracy is known to about {sure:.1f} points.")
    return " ".join(said)


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
