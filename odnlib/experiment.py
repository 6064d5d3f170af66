"""One training run from settings to result: train, choose the depth on validation, cut the network, test it once."""

import ctypes
import dataclasses
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch

from odnlib import files, metrics, models
from odnlib.data import Data
from odnlib.files import RunConflict, lock_folder, read_json, write_csv, write_json
from odnlib.progress import ProgressBar, StatusFile
from odnlib.recipes import DEFAULT_SETTINGS, Recipe, RecipeError
from odnlib.search import train_variant
from odnlib.trainer import Listener, Run, log

NetworkMaker = Callable[[], models.MultiExitNetwork]  # of a network with its initial weights


class OutOfMemory(RuntimeError):
    """Raised if training does not fit into memory; the message says at which depth, and what to try."""


OUT_OF_MEMORY_PATTERN = re.compile("out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)


def choose_device(wanted: str = "auto") -> str:
    """Return a device's name: `wanted`, or for "auto" the best of cuda, mps, cpu; RecipeError if it is not here."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError):
        raise RecipeError(f"device {wanted!r} is not here: use auto, cpu, or a device that PyTorch sees") from None
    return wanted


def keep_freed_memory() -> None:
    """Tell glibc's malloc, where there is one, to reuse freed memory instead of returning it to the system.

    By default the system fills every large activation with zeros, page by page: evaluation then takes up to three times
    as long (`results/notes.md`). Results do not change.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        if mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25):  # the most that older ones take
            mallopt(trim_threshold, 2**31 - 1)


def delete_files(folder: Path, pattern: str) -> None:
    """Delete the files in a folder whose names match a glob pattern."""
    for left in folder.glob(pattern):
        left.unlink()


def folder_of_run(recipe: Recipe, results_dir: Path | str) -> Path:
    """Return the path of a recipe's run folder, <results_dir>/<profile>/runs/<name>, which need not exist."""
    return Path(results_dir) / recipe.profile / "runs" / recipe.name


def list_setting_differences(recipe: Recipe, folder: Path) -> list[str]:
    """Return a text for each setting in which a run's folder differs from `recipe`, and for the training version."""
    # A setting that did not exist then was what its default is now.
    recorded = DEFAULT_SETTINGS | read_json(folder / "recipe.json")
    wanted = dataclasses.asdict(recipe)
    found = [(name, recorded.get(name), wanted.get(name)) for name in sorted(recorded.keys() | wanted.keys())]
    lines = [f"{name}: there {there}, wanted {want}" for name, there, want in found if there != want]
    version = read_json(folder / "provenance.json").get("training_version", 1)
    if version != files.TRAINING_VERSION:
        lines.append(f"training version: there {version}, today {files.TRAINING_VERSION}")
    return lines


def status_of_run(recipe: Recipe, folder: Path) -> str:
    """Return the state of a run's folder: missing, partial (can be continued), finished, or stale (made otherwise)."""
    if not ((folder / "recipe.json").exists() and (folder / "provenance.json").exists()):
        return "missing"
    if list_setting_differences(recipe, folder):
        return "stale"
    return "finished" if (folder / "result.json").exists() else "partial"


def run(
    recipe: Recipe, images: Callable[[], Data], results_dir: Path | str, listeners: Iterable[Listener] = (), *,
    fresh: bool | str = False, wait: bool = True, network: NetworkMaker | None = None, tested: bool = True,
) -> Path:  # fmt: skip
    """Do one training run, or what is left of it: train, choose the depth, test, write results; return its folder.

    Args:
        images: loads the splits; called only if something is left to train.
        listeners: called after every epoch, first for the epochs already recorded; those with a `within_epoch` also
            during epochs. A progress bar and the status file are always among them.
        fresh: start over; the existing folder is kept under another name. If a time (UTC, as in provenance.json), only
            a run begun before it starts over.
        wait: wait while another process works on this run, instead of raising FolderLocked.
        network: makes the untrained network; by default `models.build` from the recipe, seeded by it.
        tested: false leaves the test images alone, for a run that others are still to be compared with.

    Raises:
        RunConflict: the folder was made by another training version, other settings or other images.
        FolderLocked: another process works on this run and `wait` is false.
        TrainingDiverged: the loss is not finite. OutOfMemory: training does not fit into memory.
    """
    folder, listeners = folder_of_run(recipe, results_dir), list(listeners)
    with lock_folder(folder, wait), ProgressBar(recipe, folder) as bar:
        began = (read_json(folder / "provenance.json") or {}).get("start", "")
        if folder.exists() and (fresh is True or began < (fresh or "")):
            files.rename_replaced_folder(folder)
        state = status_of_run(recipe, folder)
        if state == "stale":
            listed = "; ".join(list_setting_differences(recipe, folder))
            raise RunConflict(f"{folder} was made otherwise ({listed}): keep it, or start over with --fresh")
        if state == "finished":
            delete_files(folder, "checkpoint*")  # where it was killed before it had
            for record in pd.read_csv(folder / "epochs.csv").to_dict("records"):
                for listener in (bar, *listeners):
                    listener(recipe, record)
            return folder
        data = images()
        folder.mkdir(exist_ok=True)
        delete_files(folder, ".*.[0-9]*")  # half-written by a process that was killed; we hold the folder
        file, threads = logging.FileHandler(folder / "log.txt"), torch.get_num_threads()
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(file)
        try:
            _train(recipe, data, folder, [StatusFile(folder), bar, *listeners], network, tested)
        finally:
            torch.set_num_threads(threads)
            log.removeHandler(file)
            file.close()
    return folder


def _train(
    recipe: Recipe, data: Data, folder: Path, listeners: list[Listener], network: NetworkMaker | None, tested: bool
) -> None:
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    keep_freed_memory()
    device, dataset = data.train.images.device, data.train.dataset
    data = dataclasses.replace(data, train=data.train.with_augmentation(recipe.crop_padding, recipe.flip))
    checksums = {name: split.sha256() for name, split in vars(data).items()}
    write_recipe_and_provenance(recipe, folder, str(device), checksums)
    run = None
    try:
        torch.manual_seed(recipe.seed)
        registry = (recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        made = network() if network else models.build(*registry)
        run = Run(recipe, made.to(device, memory_format=torch.channels_last), data, folder, listeners)
        evaluate_and_write_results(run, train_variant(run), tested)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY_PATTERN.search(str(error)):
            raise
        depth = (run and run.at[1]) or recipe.last_depth
        raise OutOfMemory(
            f"{device} has not the memory for batches of {recipe.batch_size} at depth {depth}: try a smaller "
            f"batch_size or width; what was kept is in {folder}"
        ) from error


def write_recipe_and_provenance(recipe: Recipe, folder: Path, device: str, checksums: dict[str, str]) -> None:
    """Write recipe.json and provenance.json, or what changed since the run began; RunConflict if the images did."""
    now, begun = files.collect_provenance(device, checksums), read_json(folder / "provenance.json")
    if begun is None:
        write_json(folder / "recipe.json", dataclasses.asdict(recipe))
        write_json(folder / "provenance.json", now)
        return
    named = ("threads", "device", "processor", "python", "versions", "data_sha256")
    changed = {name: [begun[name], now[name]] for name in named if begun[name] != now[name]}
    if "data_sha256" in changed:
        raise RunConflict(f"{folder} was begun with other images: use the same data_dir, or start over with --fresh")
    if changed:
        log.warning("%s was begun with another %s: the bytes may differ", folder, ", ".join(changed))
        begun["continued_with_other"] = [*begun.get("continued_with_other", []), changed]
        write_json(folder / "provenance.json", begun)


def evaluate_and_write_results(run: Run, depth: int, tested: bool) -> None:
    """Cut the trained network at `depth`, evaluate it (`tested`: on test images too), write depths.csv, result.json."""
    recipe, data, folder = run.recipe, run.data, run.folder
    network, shape, records = run.network.truncate(depth), run.data.test.dataset.image_shape, run.records
    network.load_state_dict(run.best)
    lines = metrics.measure_every_depth(run.network, shape, recipe.last_depth)
    for line in lines:
        at, tried = line["depth"], sum(record["depth"] == line["depth"] for record in records)
        line["warmup_val_acc_pct"] = run.warmup_accuracy_pct[at - 1] if run.warmup_accuracy_pct else None
        line |= {"epochs": tried, "val_acc_pct": run.accuracy_pct[at] if tried else None, "chosen": at == depth}
    write_csv(folder / "depths.csv", lines)
    result = {name: getattr(recipe, name) for name in ("row", "variant", "profile", "rule", "seed")}
    result |= {"changed": recipe.overridden, "depth": depth, "max_depth": run.network.max_depth}
    result |= metrics.measure_size_and_macs(network, shape) | {
        "val_acc_pct": metrics.evaluate(network, data.validation)[1][0],
        "test_acc_pct": metrics.evaluate(network, data.test)[1][0] if tested else None,
        "test_images": len(data.test) if tested else 0,
        "met_goal": run.best_pct >= recipe.goal_pct,
        "epochs": len(records),
        "train_tmacs": records[-1]["train_tmacs"] if records else 0.0,
    }
    spent = {"seconds": round(sum(run.seconds), 1), "train_tmacs": result["train_tmacs"]}
    write_json(folder / "provenance.json", read_json(folder / "provenance.json") | spent)
    write_json(folder / "result.json", result)
    delete_files(folder, "checkpoint*")  # larger than all that is kept of a run
