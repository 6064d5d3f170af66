"""The folders of training runs: where they are, how their files are written, and who made them.

A run's folder holds recipe.json, epochs.csv (one line per epoch), depths.csv (one line per depth), result.json, and
separately, because they hold clock times, timing.csv, status.json and provenance.json. Weights lie there too, ignored
by git. The folder's name is a label that nothing parses.
"""

import datetime
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, SoftFileLease, SoftFileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent  # the repository: notebooks/, results/ and data/ lie here
TRAINING_VERSION = 1  # of the bytes that training gives: raised when a change gives others (tests/same_bytes.py)
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "safetensors")
LEASE = 300.0  # seconds without a sign of life after which a lock is no longer anybody's, where there is no flock
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
(log := logging.getLogger("odnlib")).setLevel(logging.DEBUG)  # what a handler shows is its own business


class RunConflict(RuntimeError):
    """Raised if a run's folder does not fit what is asked: other settings, images, code or depths."""


class Held(RuntimeError):
    """Raised if another process works on this run; the message says which, and what to do if it is dead."""


def replace(path: Path, write: Callable[[Path], Any], durable: bool = True) -> None:
    """Write a file atomically: `write` makes it under a temporary name, which is then renamed to `path`."""
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
    """Write recorded numbers as CSV in full precision, so that reading returns the same floats."""
    replace(path, lambda temporary: pd.DataFrame(lines).to_csv(temporary, index=False))


def write_table(path: Path, lines: pd.DataFrame) -> None:
    """Write computed numbers as CSV, rounded to six digits and ten decimals, since processors differ beyond."""
    replace(path, lambda temporary: lines.round(10).to_csv(temporary, index=False, float_format="%.6g"))


def write_json(path: Path, content: dict, durable: bool = True) -> None:
    replace(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"), durable)


def read_json(path: Path) -> dict | None:
    """Return the content of a JSON file, or None if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def held(folder: Path, wait: bool) -> Iterator[None]:
    """Lock a run's folder while a `with` block works on it; if another process holds it, wait, or raise Held.

    The lock is flock's, which ends with its process. Where the file system has none, it is a file that its holder keeps
    touching; one that nobody has touched for long is not waited for (Held).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file, note = (folder.with_name(f".{folder.name}.{kind}") for kind in ("lock", "holder.lock"))
    lock = FileLock(file)
    with suppress(Timeout):
        lock.acquire(blocking=False)
    if lease := isinstance(lock, SoftFileLock):  # what it becomes where there is no flock: nobody sees it live
        lock.release()
        lock = SoftFileLease(file, lease_duration=LEASE, on_compromise=lambda _: interrupt_main())
        with suppress(Timeout):
            lock.acquire(blocking=False)
    if not lock.is_locked:
        holder = f"{folder} is being worked on by {note.read_text() if note.exists() else 'another process'}"
        if lease:
            hours = (time.time() - file.stat().st_mtime) / 3600
            holder += f", or was: delete {file}, {hours:.1f} hours old, if that is dead"
        if not wait:
            raise Held(f"{holder}; nothing was done here")
        log.warning("%s: waiting for it to end", holder)
    while not lock.is_locked:
        with suppress(Timeout):
            lock.acquire(timeout=2 * LEASE if lease else -1)
        if not lock.is_locked and time.time() - file.stat().st_mtime > 2 * LEASE:
            raise Held(f"{holder}; nothing was done here")
    try:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note.write_text(f"process {os.getpid()} on {platform.node()} since {now}")
        yield
    finally:
        lock.release()


def set_aside(folder: Path) -> None:
    """Rename a run's folder to <name>.replaced<number>, so that the run can start over."""
    asides = (folder.with_name(f"{folder.name}.replaced{number}") for number in count(1))
    folder.rename(next(aside for aside in asides if not aside.exists()))


def run_folders(results_dir: Path | str, profile: str = "*", variant: str | None = None) -> list[Path]:
    """Return the sorted folders of finished runs, of one profile and variant or of all, without those set aside."""
    finished = [file.parent for file in sorted(Path(results_dir).glob(f"{profile}/runs/*/result.json"))]
    folders = [folder for folder in finished if ".replaced" not in folder.name]
    return [x for x in folders if variant in (None, read_json(x / "result.json")["variant"])]


def _git(*arguments: str) -> str | None:
    """Return what a git command prints in this repository; None if it fails or ROOT is not a repository's top."""
    alone = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    alone["GIT_CEILING_DIRECTORIES"] = str(ROOT.parent)
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, env=alone, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """Return a text that tells CPUs apart: name, family, model, the vector instruction sets that matter, cores.

    A virtual machine's "AMD EPYC" alone does not.
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
    """Return what is recorded of a run's origin: commit, versions, hardware, checksums of the images, start time."""
    changed = _git("status", "--porcelain", "--", "odnlib", "requirements.lock")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "code_unchanged_since_commit": changed == "",
        "training_version": TRAINING_VERSION,
        "python": platform.python_version(),
        "versions": {x.name: x.version for x in importlib.metadata.distributions() if x.name in PACKAGES},
        "system": platform.system(),
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "data_sha256": checksums,
        "start": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
