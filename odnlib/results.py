"""Run folders: where they are, what is in them, how it is written, who made it - and measured beside printed.

A run's folder holds recipe.json, epochs.csv (one line per epoch), depths.csv (one per depth), result.json, and apart
from these, because they hold clock values, timing.csv and provenance.json. Weights lie beside them, ignored by git.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from odnlib import ROOT
from odnlib.recipes import SETTINGS, Recipe

TRAINING_CODE = ("architectures.py", "data.py", "metrics.py", "models.py", "schedule.py", "trainer.py")
# Hashes of earlier training code whose runs come out of today's with the same bytes, and how that was seen.
SAME_BYTES = {
    "d44bf2258637edc1": "before `fast`: smoke runs of mnist and cifar10 (released, both variants) compared, 2026-11-23",
    "649808a73874399a": "before mid-epoch saving: smoke runs of mnist (released, fast) and cifar10 (released), both "
    "variants, and a fast search on real EMNIST compared, 2026-11-23",
    "a0f0f81a95d51d59": "the same code with the embedded images' own",
    "f5694b54b331d76f": "before networks other than ResNets: smoke runs of width 16 of mnist (released, fast), cifar10 "
    "and fashion_mnist (released; bfloat16), both variants, and fast runs on real EMNIST compared, 2026-11-23; below "
    "width 16 a strided shortcut is computed otherwise now",
    "e956c0a377951b6d": "before large images were evaluated fewer at a time: smoke runs of mnist (released, fast) and "
    "cifar10 (released), and fast runs in bfloat16 on real Fashion-MNIST, both variants, compared, 2026-11-24",
    "8c8fd386370f4bbb": "the same code with the embedded images' own",
}
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "thop", "scikit-learn", "safetensors")


class RunConflict(RuntimeError):
    """A run's folder holds something that must not be mixed with it; the message says what and what to do."""


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file under a temporary name, then rename it to `path`: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, lines: list[dict] | pd.DataFrame) -> None:
    """What a run records: numbers in full, so that reading gives the same bits."""
    replace(path, lambda temporary: pd.DataFrame(lines).to_csv(temporary, index=False))


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """What is computed from runs: six significant digits, for the last of all differ between processors; what differs
    from zero in the tenth decimal or later is rounding, and zero.
    """

    def short(value: object) -> object:
        return float(f"{round(value, 10):.6g}") + 0.0 if isinstance(value, float) else value  # + 0.0: no -0.0

    write_csv(path, frame.map(short))


def write_json(path: Path, content: dict) -> None:
    replace(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"))


def read_json(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run's folder; a setting that did not exist then was what its default is now."""
    recorded = read_json(folder / "recipe.json")
    return Recipe(**{item.name: recorded[item.name] for item in dataclasses.fields(Recipe) if item.name in recorded})


def run_folder(recipe: Recipe, results_dir: Path) -> Path:
    return Path(results_dir) / recipe.profile / "runs" / recipe.name


@functools.cache
def uncommented(source: str) -> bytes:
    """What a Python file does: without comments, docstrings and layout, alike in all supported versions of Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.unparse(tree).encode()  # ast.dump differs between Python versions


def files_of_runs(folder: Path, name: str) -> list[Path]:
    """The files of this name in the run folders of results/<profile>, those set aside left out."""
    return [file for file in sorted(folder.glob(f"runs/*/{name}")) if ".replaced" not in file.parent.name]


def code_hash(embedded: bool) -> str:
    """Hash of what the training code does - and of the images' own code where they are embedded."""
    digest = hashlib.sha256()
    for name in TRAINING_CODE + ("embedded.py",) * embedded:
        digest.update(uncommented((Path(__file__).parent / name).read_text()))
    return digest.hexdigest()[:16]


def by_todays_code(provenance: dict, embedded: bool) -> bool:
    """Whether today's training code would give the same bytes as the code that made a run."""
    return provenance["code_hash"] in {code_hash(embedded), *SAME_BYTES}


def differences(recipe: Recipe, folder: Path) -> list[str]:
    """What keeps a run's folder from being today's run of `recipe`, a line each; empty: nothing does."""
    # A setting that did not exist then was what its default is now.
    recorded = {item.name: item.default for item in SETTINGS.values()} | read_json(folder / "recipe.json")
    wanted, made_by = dataclasses.asdict(recipe), read_json(folder / "provenance.json")
    names = sorted(recorded.keys() | wanted.keys())
    found = [(name, recorded.get(name), wanted.get(name)) for name in names]
    lines = [f"{name}: there {there}, wanted {want}" for name, there, want in found if there != want]
    if not by_todays_code(made_by, recipe.embedded):
        lines.append(f"training code: there {made_by['code_hash']}, today {code_hash(recipe.embedded)}")
    return lines


def status(recipe: Recipe, folder: Path) -> str:
    """missing, partial (goes on when run again), finished, or stale (made by other training code or settings)."""
    if not ((folder / "recipe.json").exists() and (folder / "provenance.json").exists()):
        return "missing"
    if differences(recipe, folder):
        return "stale"
    return "finished" if (folder / "result.json").exists() else "partial"


def set_aside(folder: Path) -> None:
    """Keep a run's folder under another name, so that the run can start over."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.replaced{number}")).exists():
        number += 1
    folder.rename(aside)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """Name of the CPU and number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def provenance(recipe: Recipe, device: str, checksums: dict[str, str]) -> dict:
    """Who made a run: commit, code, versions, hardware, data, start."""
    what_trains = [f"odnlib/{name}" for name in (*TRAINING_CODE, "embedded.py", "recipes.py", "experiment.py")]
    changed = _git("status", "--porcelain", "--", *what_trains, "requirements.lock")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "code_unchanged_since_commit": changed == "",
        "code_hash": code_hash(recipe.embedded),
        "python": platform.python_version(),
        "versions": {x.name: x.version for x in importlib.metadata.distributions() if x.name in PACKAGES},
        "system": platform.system(),
        "processor": processor(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "data_sha256": checksums,
        "start": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
