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
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "pandas", "safetensors")
LOCK_LEASE_SECONDS = 300.0  # without a sign of life, after which a lock is nobody's, where there is no flock
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # that change the bytes training gives
(log := logging.getLogger("odnlib")).setLevel(logging.DEBUG)  # what a handler shows is its own business


class RunConflict(RuntimeError):
    """Raised if a run folder was made with other settings, images, training code or depths than are asked for now."""


class FolderLocked(RuntimeError):
    """Raised if another process works in a folder; the message says which, and what to do if that is dead."""


def write_atomically(path: Path, write: Callable[[Path], Any], durable: bool = True) -> None:
    """Write a file atomically: `write(temporary)` makes it, then it is renamed to `path`; `durable` syncs the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, rows: list[dict] | pd.DataFrame) -> None:
    """Write a table of recorded numbers as CSV in full precision, so that reading it returns the same floats."""
    write_atomically(path, lambda temporary: pd.DataFrame(rows).to_csv(temporary, index=False))


def write_rounded_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table of computed numbers as CSV, rounded to six digits and ten decimals, as processors differ beyond."""
    write_atomically(path, lambda temporary: table.round(10).to_csv(temporary, index=False, float_format="%.6g"))


def write_json(path: Path, content: dict, durable: bool = True) -> None:
    """Write a dict as an indented JSON file, atomically; `durable` syncs the disk."""
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"), durable)


def read_json(path: Path) -> dict | None:
    """Return the dict that a JSON file holds, or None if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def lock_folder(folder: Path, wait: bool) -> Iterator[None]:
    """Lock a folder while a `with` block works in it; if another process does, `wait` for it or raise FolderLocked.

    The lock is flock's, which ends with its process. Where the file system has none, it is a file that its holder keeps
    touching; one that nobody has touched for long is not waited for (FolderLocked).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file, note = (folder.with_name(f".{folder.name}.{kind}") for kind in ("lock", "holder.lock"))
    lock = FileLock(file)
    with suppress(Timeout):
        lock.acquire(blocking=False)
    if lease := isinstance(lock, SoftFileLock):  # what it becomes where there is no flock: nobody sees it live
        lock.release()
        lock = SoftFileLease(file, lease_duration=LOCK_LEASE_SECONDS, on_compromise=lambda _: interrupt_main())
        with suppress(Timeout):
            lock.acquire(blocking=False)
    if not lock.is_locked:
        holder = f"{folder} is being worked on by {note.read_text() if note.exists() else 'another process'}"
        if lease:
            hours = (time.time() - file.stat().st_mtime) / 3600
            holder += f", or was: delete {file}, {hours:.1f} hours old, if that is dead"
        if not wait:
            raise FolderLocked(f"{holder}; nothing was done here")
        log.warning("%s: waiting for it to end", holder)
    while not lock.is_locked:
        with suppress(Timeout):
            lock.acquire(timeout=2 * LOCK_LEASE_SECONDS if lease else -1)
        if not lock.is_locked and time.time() - file.stat().st_mtime > 2 * LOCK_LEASE_SECONDS:
            raise FolderLocked(f"{holder}; nothing was done here")
    try:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note.write_text(f"process {os.getpid()} on {platform.node()} since {now}")
        yield
    finally:
        lock.release()


def rename_replaced_folder(folder: Path) -> None:
    """Rename a run's folder to <name>.replaced<number>, a name not taken yet, so that the run can start over."""
    asides = (folder.with_name(f"{folder.name}.replaced{number}") for number in count(1))
    folder.rename(next(aside for aside in asides if not aside.exists()))


def find_finished_runs(results_dir: Path | str, profile: str = "*", variant: str | None = None) -> list[Path]:
    """Return the sorted folders of runs with a result, of one profile or variant (odn, full) or all; none replaced."""
    results = sorted(Path(results_dir).glob(f"{profile}/runs/*/result.json"))
    kept = [x for x in results if ".replaced" not in x.parent.name]
    return [x.parent for x in kept if variant in (None, read_json(x)["variant"])]


def _git(*arguments: str) -> str | None:
    """Return what a git command prints in this repository; None if it fails or ROOT is not a repository's top."""
    alone = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    alone["GIT_CEILING_DIRECTORIES"] = str(ROOT.parent)
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, env=alone, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe_processor() -> str:
    """Return a text that tells CPUs apart: name, family, model, `INSTRUCTION_SETS` and number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.exists() else []
    about = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    name = about.get("model name", platform.processor() or platform.machine())
    kind = f" (family {about['cpu family']}, model {about['model']})" if "cpu family" in about else ""
    has = about.get("flags", "").split()
    sets = " ".join(x for x in INSTRUCTION_SETS if x in has)
    return f"{name}{kind}, {sets + ', ' if sets else ''}{os.cpu_count()} cores"


def collect_provenance(device: str, checksums: dict[str, str]) -> dict:
    """Return the dict recorded of a run's origin: commit, versions, hardware, `checksums` of images, start (UTC)."""
    changed = _git("status", "--porcelain", "--", "odnlib", "requirements.lock")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "code_unchanged_since_commit": changed == "",
        "training_version": TRAINING_VERSION,
        "python": platform.python_version(),
        "versions": {x.name: x.version for x in importlib.metadata.distributions() if x.name in RECORDED_PACKAGES},
        "system": platform.system(),
        "processor": describe_processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "data_sha256": checksums,
        "start": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
