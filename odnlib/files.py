"""Run folders: where they are, how they are written, who made them.

A run's folder holds recipe.json, epochs.csv (one line per epoch), depths.csv (one per depth), result.json, and apart
from these, because they hold clock values, timing.csv, status.json and provenance.json. Weights lie beside them,
ignored by git. The folder's name is a label that nothing parses.
"""

import datetime
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

ROOT = Path(__file__).resolve().parent.parent  # the repository: notebooks/, results/ and data/ lie here
TRAINING_VERSION = 1  # of the bytes that training gives: raised when a change gives others (tests/same_bytes.py)
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "safetensors")
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


class RunConflict(RuntimeError):
    """A run's folder holds something that must not be mixed with it; the message says what and what to do."""


def replace(path: Path, write: Callable[[Path], Any], durable: bool = True) -> None:
    """Let `write` make a file under a temporary name, then rename it to `path`: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, lines: list[dict] | pd.DataFrame) -> None:
    """What was recorded: numbers in full, so that reading gives the same bits."""
    replace(path, lambda temporary: pd.DataFrame(lines).to_csv(temporary, index=False))


def write_table(path: Path, lines: pd.DataFrame) -> None:
    """What was computed from records: six digits, none after the tenth decimal; beyond, processors differ."""
    replace(path, lambda temporary: lines.round(10).to_csv(temporary, index=False, float_format="%.6g"))


def write_json(path: Path, content: dict, durable: bool = True) -> None:
    replace(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"), durable)


def read_json(path: Path) -> dict | None:
    """None where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else None


def set_aside(folder: Path) -> None:
    """Keep a run's folder under another name, so that the run can start over."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.replaced{number}")).exists():
        number += 1
    folder.rename(aside)


def run_folders(results_dir: Path | str, profile: str = "*", variant: str | None = None) -> list[Path]:
    """The folders of finished runs in results/<profile>, those set aside left out."""
    finished = [file.parent for file in sorted(Path(results_dir).glob(f"{profile}/runs/*/result.json"))]
    folders = [folder for folder in finished if ".replaced" not in folder.name]
    return [x for x in folders if variant in (None, read_json(x / "result.json")["variant"])]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """The CPU's name, family and model, its widest instruction sets as far as training uses them, and its cores.

    A virtual machine's "AMD EPYC" alone does not tell processors apart.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.exists() else []
    about = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    name = about.get("model name", platform.processor() or platform.machine())
    kind = f" (family {about['cpu family']}, model {about['model']})" if "cpu family" in about else ""
    has = about.get("flags", "").split()
    sets = " ".join(x for x in INSTRUCTION_SETS if x in has)
    return f"{name}{kind}, {sets + ', ' if sets else ''}{os.cpu_count()} cores"


def provenance(device: str, checksums: dict[str, str]) -> dict:
    """Who makes a run: commit, versions, hardware, images, start."""
    changed = _git("status", "--porcelain", "--", "odnlib", "requirements.lock")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "code_unchanged_since_commit": changed == "",
        "training_version": TRAINING_VERSION,
        "python": platform.python_version(),
        "versions": {x.name: x.version for x in importlib.metadata.distributions() if x.name in PACKAGES},
        "system": platform.system(),
        "processor": processor(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "data_sha256": checksums,
        "start": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
