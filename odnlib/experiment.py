"""One run from recipe to result: train, choose on validation, cut out, measure, test once, write."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock

from odnlib import metrics
from odnlib.data import Data, Dataset
from odnlib.models import MultiExitNetwork
from odnlib.recipes import Recipe, RecipeError
from odnlib.results import (
    RunConflict,
    processor,
    provenance,
    read_json,
    run_folder,
    set_aside,
    status,
    write_csv,
    write_json,
)
from odnlib.trainer import Stage, Training, next_stage, train

Listener = Callable[[Recipe, dict], None]  # called after every epoch with its record


def choose_device(wanted: str = "auto") -> str:
    """`auto` takes a GPU if there is one.

    Raises:
        RecipeError: where the device does not exist here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError):
        raise RecipeError(f"device {wanted!r} is not here: use auto, cpu, or a device that PyTorch sees") from None
    return wanted


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


def run(recipe: Recipe, data: Data, results_dir: Path, listeners: Iterable[Listener] = (), fresh: bool = False) -> Path:
    """Do what is left of a run - all of it, some of it, or nothing - and return its folder.

    Args:
        listeners: told of every epoch, those of earlier times first.
        fresh: start over; what is there is kept under another name beside it.

    Raises:
        RunConflict: where the folder was made by other training code or settings.
        TrainingDiverged: where the loss is not finite.
    """
    folder = run_folder(recipe, results_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # two notebooks may want the same run: one does it
        return _run(recipe, data, folder, listeners, fresh)


def _run(recipe: Recipe, data: Data, folder: Path, listeners: Iterable[Listener], fresh: bool) -> Path:
    if fresh and folder.exists():
        set_aside(folder)
    state = status(recipe, folder)
    if state == "stale":
        raise RunConflict(f"{folder} was made by other training code or settings: keep it, or start over with --fresh")
    if state == "finished":
        for record in pd.read_csv(folder / "epochs.csv").to_dict("records"):
            for listener in listeners:
                listener(recipe, record)
        return folder
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    folder.mkdir(parents=True, exist_ok=True)
    if state == "missing":
        splits = {"train": data.train, "validation": data.validation, "test": data.test}
        write_json(folder / "recipe.json", dataclasses.asdict(recipe))
        checksums = {name: split.sha256() for name, split in splits.items()}
        write_json(folder / "provenance.json", provenance(recipe, str(data.train.images.device), checksums))
    training = Training(recipe, data, folder)
    timing = folder / "timing.csv"
    seconds = pd.read_csv(timing).to_dict("records") if timing.exists() else []
    start = time.perf_counter()
    for record in train(training):
        if record is training.records[-1] and len(seconds) < len(training.records):
            seconds.append({"epoch": record["epoch"], "seconds": round(time.perf_counter() - start, 3)})
            write_csv(folder / "epochs.csv", training.records)
            write_csv(timing, seconds)
        for listen in listeners:
            listen(recipe, record)
        start = time.perf_counter()
    _conclude(training, sum(line["seconds"] for line in seconds))
    return folder


def _conclude(training: Training, seconds: float) -> None:
    """Cut the chosen network out, measure it, test it once, write what the run is remembered by."""
    recipe, data, folder = training.recipe, training.data, training.folder
    network, epochs = training.best_network(), pd.DataFrame(training.records)
    depth = training.stage.depth
    lines = structure_per_depth(recipe, data.test.dataset).to_dict("records")
    for line in lines:
        at = epochs[epochs["depth"] == line["depth"]] if len(epochs) else epochs
        line["warmup_val_acc_pct"] = (
            training.warmup_accuracy_pct[line["depth"] - 1] if training.warmup_accuracy_pct else None
        )
        line["epochs"] = len(at)
        line["val_acc_pct"] = training.kept_accuracy_pct[line["depth"]] if len(at) else None
        line["chosen"] = line["depth"] == depth
    write_csv(folder / "depths.csv", lines)
    image_shape = data.test.dataset.image_shape
    result = {
        "row": recipe.row,
        "variant": recipe.variant,
        "profile": recipe.profile,
        "protocol": recipe.protocol,
        "tag": recipe.tag,
        "seed": recipe.seed,
        "depth": depth,
        "max_depth": training.network.max_depth,
        **metrics.structure(network, image_shape),
        "thop_macs_m": metrics.thop_macs(network, image_shape) / 1e6,
        "val_acc_pct": metrics.evaluate(network, data.validation)[1][0],
        "test_acc_pct": metrics.evaluate(network, data.test)[1][0],
        "test_images": len(data.test),
        "met_goal": training.best_pct >= recipe.goal_pct,
        "epochs": len(training.records),
        "train_tmacs": training.records[-1]["train_tmacs"] if training.records else 0.0,
    }
    made_by = read_json(folder / "provenance.json")
    write_json(
        folder / "provenance.json", made_by | {"seconds": round(seconds, 1), "train_tmacs": result["train_tmacs"]}
    )
    write_json(folder / "result.json", result)
