"""One run from recipe to result: train, choose on validation, cut out, measure, test once, write."""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import logging
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout

from odnlib import metrics
from odnlib.checkpoint import Keeper, Stopped, log
from odnlib.data import Data
from odnlib.recipes import Recipe, RecipeError
from odnlib.results import (
    RunConflict,
    differences,
    provenance,
    read_json,
    run_folder,
    set_aside,
    status,
    write_csv,
    write_json,
)
from odnlib.tables import structure_per_depth
from odnlib.trainer import Training


class Held(RuntimeError):
    """Another process is at this run; the message says which."""


class OutOfMemory(RuntimeError):
    """The network does not fit into memory; the message says at which depth, and what to try."""


OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
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


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory rather than give it back, where it is glibc; the bytes are the same.

    By default every large activation is new memory, which the system fills with zeros page by page: evaluation then
    takes up to three times as long (`results/notes.md`).
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        if mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25):  # the most that older ones take
            mallopt(trim_threshold, 2**31 - 1)


@contextmanager
def held(folder: Path, wait: bool) -> Iterator[None]:
    """Hold a run's folder, so that no other process works in it.

    The system takes the lock from a process that is gone, so a lock file that was left behind holds nobody up.

    Raises:
        Held: another process holds it, and we do not `wait`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    note = folder.with_name(f".{folder.name}.holder.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = f"{folder} is being worked on by {note.read_text() if note.exists() else 'another process'}"
        if not wait:
            raise Held(f"{holder}; nothing was done here") from None
        log.warning("%s: waiting for it to end", holder)
        lock.acquire()
    try:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note.write_text(f"process {os.getpid()} on {platform.node()} since {now}")
        yield
    finally:
        lock.release()


def run(
    recipe: Recipe,
    data: Data,
    results_dir: Path,
    listeners: Iterable[Listener] = (),
    fresh: bool = False,
    wait: bool = True,
    budget_s: float | None = None,
) -> Path:
    """Do what is left of a run - all of it, some of it, or nothing - and return its folder.

    Args:
        listeners: told of every epoch, those of earlier times first; those with a `within_epoch` also on the way.
        fresh: start over; what is there is kept under another name beside it.
        wait: where another process is at this run, for it to end.
        budget_s: seconds after which to stop.

    Raises:
        RunConflict: where the folder was made by other training code or settings.
        Held: where another process is at it and we do not wait.
        Stopped: by a signal, or out of time; all is kept.
        TrainingDiverged: where the loss is not finite. OutOfMemory: where the network does not fit.
    """
    folder = run_folder(recipe, results_dir)
    with held(folder, wait):
        if fresh and folder.exists():
            set_aside(folder)
        state = status(recipe, folder)
        if state == "stale":
            listed = "; ".join(differences(recipe, folder))
            raise RunConflict(
                f"{folder} was made by other training code or settings ({listed}): keep it, or start over with --fresh"
            )
        if state == "finished":
            for record in pd.read_csv(folder / "epochs.csv").to_dict("records"):
                for listener in listeners:
                    listener(recipe, record)
            return folder
        folder.mkdir(exist_ok=True)
        for left in folder.glob(".*"):  # half-written by a process that was killed; we hold the folder
            left.unlink()
        file = logging.FileHandler(folder / "log.txt")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(file)
        try:
            _run(recipe, data, folder, listeners, budget_s)
        finally:
            log.removeHandler(file)
            file.close()
    return folder


def _run(recipe: Recipe, data: Data, folder: Path, listeners: Iterable[Listener], budget_s: float | None) -> None:
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    keep_freed_memory()
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    made_by = provenance(
        recipe, str(data.train.images.device), {name: split.sha256() for name, split in splits.items()}
    )
    begun_by = read_json(folder / "provenance.json")
    if begun_by is None:
        write_json(folder / "recipe.json", dataclasses.asdict(recipe))
        write_json(folder / "provenance.json", made_by)
    else:
        go_on(folder, begun_by, made_by)
    training = None
    try:
        training = Training(recipe, data, folder)
        with Keeper(training, budget_s, [x.within_epoch for x in listeners if hasattr(x, "within_epoch")]) as keeper:
            for record in keeper.epochs():
                if record is training.records[-1]:
                    write_csv(folder / "epochs.csv", training.records)
                    write_csv(folder / "timing.csv", timing(keeper))
                for listen in listeners:
                    listen(recipe, record)
            _conclude(training, keeper)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        depth = (training and training.stage.depth) or recipe.last_depth
        raise OutOfMemory(
            f"{data.train.images.device} has not the memory for batches of {recipe.batch_size} at depth {depth}: try a "
            f"smaller batch_size or width; what was kept is in {folder}"
        ) from error
    if keeper.asked:
        raise Stopped(f"stopped ({keeper.asked}); {folder.name} was finished before", keeper.asked)


def go_on(folder: Path, begun_by: dict, now: dict) -> None:
    """Note in provenance.json, and warn of, what differs from when a run was begun."""
    named = ("threads", "device", "processor", "python", "versions", "data_sha256")
    changed = {name: [begun_by[name], now[name]] for name in named if begun_by[name] != now[name]}
    if "data_sha256" in changed:
        raise RunConflict(f"{folder} was begun with other images: use the same data_dir, or start over with --fresh")
    if changed:
        log.warning("%s was begun with another %s: the bytes may differ", folder, ", ".join(changed))
        begun_by["continued_with_other"] = [*begun_by.get("continued_with_other", []), changed]
        write_json(folder / "provenance.json", begun_by)


def timing(keeper: Keeper) -> list[dict]:
    return [{"epoch": i + 1, "seconds": round(taken, 3)} for i, taken in enumerate(keeper.seconds[:-1])]


def _conclude(training: Training, keeper: Keeper) -> None:
    """Cut the chosen network out, measure it, test it once, write what the run is remembered by."""
    recipe, data, folder = training.recipe, training.data, training.folder
    network, epochs = training.best_network(), pd.DataFrame(training.records)
    depth = training.stage.depth

    def logits(images: torch.Tensor) -> torch.Tensor:
        keeper.between_steps()
        return network(images)[None]

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
        "val_acc_pct": metrics.evaluate(network, data.validation, logits)[1][0],
        "test_acc_pct": metrics.evaluate(network, data.test, logits)[1][0],
        "test_images": len(data.test),
        "met_goal": training.best_pct >= recipe.goal_pct,
        "epochs": len(training.records),
        "train_tmacs": training.records[-1]["train_tmacs"] if training.records else 0.0,
    }
    write_csv(folder / "epochs.csv", training.records)
    write_csv(folder / "timing.csv", timing(keeper))
    spent = {"seconds": round(sum(keeper.seconds), 1), "train_tmacs": result["train_tmacs"]}
    write_json(folder / "provenance.json", read_json(folder / "provenance.json") | spent)
    write_json(folder / "result.json", result)
