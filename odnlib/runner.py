"""Run notebooks through papermill: which ones, with which parameters, skipping what is done, going on past failures."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
import psutil

from odnlib import ROOT, results
from odnlib.ablation import ARMS
from odnlib.experiment import choose_device
from odnlib.recipes import VARIANTS, Recipe, RecipeError, resolve, usual_protocol

NOTEBOOKS = {  # row: notebook
    "mnist": "01_mnist_resnet18",
    "emnist": "02_emnist_resnet18",
    "fashion_mnist": "03_fashion_mnist_resnet34",
    "svhn": "04_svhn_resnet34",
    "cifar10": "05_cifar10_resnet50",
}
ABLATION, ABLATION_ROW, ABLATION_SEEDS = "06_warmup_ablation", "fashion_mnist", [0, 1]
COMPARISON = "07_compare_with_paper"
READ_BY_ALL = ("*/runs/*/*.[cj]s*", "*/warmup_ablation*.csv")  # what the comparison reads
REPORT_EVERY = 60  # seconds
STOP_WITHIN = 120  # seconds that a notebook has to keep what it is at
TRACEBACK_LINES = 12


@dataclass
class Job:
    """One notebook with its parameters, and how it went."""

    source: Path
    executed: Path
    parameters: dict
    recipes: list[Recipe]  # of the runs that it needs
    results_dir: Path
    reads_all: bool = False  # every run folder: it comes last
    state: str = "waiting"
    seconds: float = 0.0
    problem: str = ""
    traceback: str = ""
    started: float = field(default=0.0, repr=False)
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def folders(self) -> list[Path]:
        return [results.run_folder(recipe, self.results_dir) for recipe in self.recipes]

    def fingerprint(self) -> str:
        """Hash of everything that shapes the executed notebook beside the runs: itself, odnlib, the parameters."""
        digest = hashlib.sha256(json.dumps(self.parameters, sort_keys=True).encode())
        written = [path for pattern in READ_BY_ALL for path in sorted(self.results_dir.glob(pattern))]
        read = written if self.reads_all else []
        for path in [self.source, *sorted((ROOT / "odnlib").glob("*.py")), *read]:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def runs(self) -> set[str]:
        return {results.status(recipe, folder) for recipe, folder in zip(self.recipes, self.folders, strict=True)}

    def done(self) -> bool:
        """Whether the executed notebook is what would come out again."""
        if self.runs() - {"finished"} or not self.executed.exists():
            return False
        executed = read_notebook(self.executed)
        return executed is not None and executed.metadata.get("odnlib_fingerprint") == self.fingerprint()

    def whereabouts(self) -> str:
        """How far the training is, read from the run folders."""
        reached = ""
        for recipe, folder in zip(self.recipes, self.folders, strict=True):
            if (folder / "epochs.csv").exists():
                last = pd.read_csv(folder / "epochs.csv").iloc[-1]
                reached = f"{recipe.variant}, epoch {last.epoch} ({last.stage}, depth {last.depth})"
        return reached or "starting"


def plan(arguments: argparse.Namespace) -> list[Job]:
    """One job per row and seed, the ablation, and the comparison; with `--rows` those rows and the comparison.

    Raises:
        RecipeError: every problem of every job, before anything starts.
    """
    rows, seeds = arguments.rows or list(NOTEBOOKS), arguments.seeds or [0]
    problems, jobs, overrides = [], [], dict(arguments.overrides)
    protocol = arguments.protocol or usual_protocol(arguments.profile)
    if arguments.jobs is None:
        arguments.jobs = 2 if arguments.profile == "smoke" else 1  # a smoke run keeps to one thread
    if arguments.jobs < 1:
        problems.append(f"jobs {arguments.jobs} is not a whole number from 1")
    for name, listed in {"seeds": seeds, "rows": rows}.items():
        if len(set(listed)) < len(listed):
            problems.append(f"{name} {listed} name one twice")
    try:
        choose_device(arguments.device)
    except RecipeError as error:
        problems.append(str(error))
    results_dir = Path(arguments.results_dir).resolve()
    places = {"results_dir": str(results_dir), "data_dir": str(Path(arguments.data_dir).resolve())}
    places["device"] = arguments.device

    def needed(row: str, seed: int, wanted: list[dict]) -> list[Recipe]:
        try:
            chosen = {"row": row, "profile": arguments.profile, "protocol": protocol, "seed": seed}
            return [resolve(**chosen, **{**overrides, **settings}) for settings in wanted]
        except RecipeError as error:
            problems.extend(line for line in str(error).splitlines() if line not in problems)
            return []

    def add(name: str, suffix: str, recipes: list[Recipe], reads_all: bool = False, **parameters: object) -> None:
        executed = results_dir / arguments.profile / "notebooks" / f"{name}{suffix}.ipynb"
        parameters |= {"profile": arguments.profile}
        jobs.append(Job(ROOT / "notebooks" / f"{name}.ipynb", executed, parameters, recipes, results_dir, reads_all))

    trained = {"protocol": protocol, "overrides": overrides, **places}
    for row in rows:
        for seed in seeds:
            recipes = needed(row, seed, [{"variant": variant} for variant in VARIANTS])
            if recipes:
                suffix = recipes[0].name.removeprefix(f"{row}-odn")
                add(NOTEBOOKS[row], suffix, recipes, row=row, seed=seed, **trained)
    if not arguments.rows:
        pairs = arguments.seeds or ABLATION_SEEDS
        recipes = [recipe for seed in pairs for recipe in needed(ABLATION_ROW, seed, list(ARMS.values()))]
        if recipes and recipes[0].warmup_epochs:  # `fast` has no warm-up to leave out
            suffix = recipes[0].name.removeprefix(f"{ABLATION_ROW}-odn").rpartition("-")[0]
            add(ABLATION, suffix, recipes, row=ABLATION_ROW, seeds=pairs, **trained)
    add(COMPARISON, "", [], reads_all=True, results_dir=str(results_dir))
    if problems:
        raise RecipeError("\n".join(problems))
    return jobs


def execute(job: Job) -> None:
    """Run one notebook in a process of its own; what goes wrong is kept in the job."""
    job.started = time.monotonic()
    if "stale" in job.runs():
        job.state, job.problem = "stale", "made by other training code or settings; --stale does it again"
        return
    if job.done():
        job.state = "done before"
        return
    job.state = "running"
    job.executed.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", str(job.source), str(job.executed), "--no-progress-bar"]
    command += ["--cwd", str(ROOT), "-y", json.dumps(job.parameters)]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # A session of its own: Ctrl-C comes here, and `stop` asks the notebooks to keep what they have.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    job.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    output, _ = job.process.communicate()
    job.seconds = time.monotonic() - job.started
    if job.process.returncode:
        job.problem, job.traceback = error_in(job.executed)
        job.problem = (
            job.problem or (output.strip() or f"papermill: exit code {job.process.returncode}").splitlines()[-1]
        )
        job.state = "stopped" if job.problem.startswith(("Stopped", "KeyboardInterrupt")) else "failed"
        return
    notebook = nbformat.read(job.executed, 4)
    notebook.metadata["odnlib_fingerprint"] = job.fingerprint()
    results.replace(job.executed, lambda path: nbformat.write(notebook, path))
    job.state = "done"


def read_notebook(path: Path) -> nbformat.NotebookNode | None:
    """A notebook, or None where there is none or only a part of one, as a killed papermill leaves it."""
    try:
        return nbformat.read(path, 4)
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return None


def error_in(executed: Path) -> tuple[str, str]:
    """The exception that ended an executed notebook in a line, and the end of its traceback; empty if there is none."""
    notebook = read_notebook(executed)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])] if notebook else []
    for error in (out for out in outputs if out.output_type == "error"):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        name = f"{error.ename}: {error.evalue}".splitlines()[0]
        return name, "\n".join(plain.splitlines()[-TRACEBACK_LINES:])
    return "", ""


def run_notebooks(arguments: argparse.Namespace) -> int:
    """Run what `arguments` (see `__main__.parser`) ask for; 0 if all is well, 1 if anything failed, 75 if stopped."""
    jobs = plan(arguments)
    start = time.monotonic()
    every = {folder: recipe for job in jobs for recipe, folder in zip(job.recipes, job.folders, strict=True)}
    for folder, recipe in every.items():
        state = results.status(recipe, folder)
        if state != "missing" and (arguments.fresh or (arguments.stale and state == "stale")):
            results.set_aside(folder)
    deadline, stopped = start + (arguments.time_budget or math.inf), ""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        for last in (False, True):
            run_side_by_side([job for job in jobs if job.reads_all == last], arguments.jobs, deadline)
    except (KeyboardInterrupt, TimeoutError) as reason:
        stopped = str(reason) or "interrupted"
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"\n{len(jobs)} notebooks in {time.monotonic() - start:.0f} s")
    for job in jobs:
        print(f"  {job.state:<12} {job.executed}")
        for folder in job.folders if job.state.startswith("done") else []:
            print(f"  {'':<12} {folder}")
        if job.state == "failed":
            print("\n".join(f"  {'':<12} {line}" for line in (job.traceback or job.problem).splitlines()))
    if stopped:
        print(f"stopped ({stopped}): what was trained is kept, and the same command goes on from there")
        return 75
    return int(any(job.state == "failed" for job in jobs))


def run_side_by_side(jobs: list[Job], side_by_side: int, deadline: float = math.inf) -> None:
    """Run jobs, so many at a time, telling where each is.

    Raises:
        KeyboardInterrupt, TimeoutError: asked to stop, or past `deadline` (time.monotonic); all notebooks have ended.
    """
    with ThreadPoolExecutor(side_by_side) as pool:
        pending = {pool.submit(execute, job): job for job in jobs}
        try:
            watch(pending, deadline)
        except (KeyboardInterrupt, TimeoutError):
            pool.shutdown(wait=False, cancel_futures=True)
            stop([job for job in pending.values() if job.process is not None])
            raise


def watch(pending: dict[Future, Job], deadline: float) -> None:
    """Tell where running jobs are until all have ended."""
    next_word = time.monotonic() + 1  # the first comes at once
    while pending:
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError("the time budget is used up")
        ended, _ = wait(pending, timeout=max(0.0, min(next_word, deadline) - now), return_when="FIRST_COMPLETED")
        if time.monotonic() >= next_word:
            next_word += REPORT_EVERY
            for job in (job for future, job in pending.items() if future not in ended and job.state == "running"):
                print(
                    f"  {job.executed.stem}: {job.whereabouts()} ({time.monotonic() - job.started:.0f} s)", flush=True
                )
        for future in ended:
            job = pending.pop(future)
            if future.exception():
                job.state, job.problem = "failed", f"{type(future.exception()).__name__}: {future.exception()}"
            print(f"{job.state}: {job.executed.stem} ({job.seconds:.0f} s) {job.problem}", flush=True)


def stop(jobs: list[Job]) -> None:
    """Let running notebooks keep what they are at and end: their kernels are interrupted, as by hand."""
    running = [job.process for job in jobs if job.process.poll() is None]
    for process in running:
        kernels = psutil.Process(process.pid).children(recursive=True)
        for kernel in kernels:
            kernel.send_signal(signal.SIGINT)
        if not kernels:
            process.terminate()
    for process in running:
        try:
            process.wait(STOP_WITHIN)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()  # its kernel follows; what was kept before is whole
