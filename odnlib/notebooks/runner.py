"""Run notebooks through papermill: side by side, skipping what is done, going on past failures, stopping when asked."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

import nbformat
import psutil

from odnlib import ROOT, results
from odnlib.experiment import held
from odnlib.notebooks import cluster
from odnlib.notebooks.plan import Job, plan, read_notebook

STARTING = threading.Lock()  # no notebook starts while the others are being stopped
REPORT_EVERY = 60  # seconds
STOP_WITHIN = 120  # seconds that a notebook has to keep what it is at
TRACEBACK_LINES = 12


def execute(job: Job, slots: SimpleQueue[dict[str, str]]) -> None:
    """Run one notebook in a process of its own, in a slot of its own; what goes wrong is kept in the job."""
    job.started = time.monotonic()
    if "stale" in job.runs():
        job.state, job.problem = "stale", "made by other training code or settings; --stale does it again"
        return
    if job.done():
        job.state = "done before"
        return
    job.state = "running"
    job.executed.parent.mkdir(parents=True, exist_ok=True)
    told = [str(job.source), str(job.executed), json.dumps(job.parameters)]
    command = [sys.executable, "-m", "odnlib.notebooks.render", *told]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # A session of its own: Ctrl-C comes here, and `stop` asks the notebooks to keep what they have.
    job.executed.unlink(missing_ok=True)  # what an earlier attempt left would be taken for this one's
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with STARTING:
        if job.state == "stopped":
            return
        slot = slots.get()  # there are as many as jobs side by side
        try:
            job.process = subprocess.Popen(command, env=environment | slot, cwd=ROOT, start_new_session=True, **pipes)
        except OSError:
            slots.put(slot)
            raise
    try:
        output, _ = job.process.communicate()
    finally:
        slots.put(slot)
    job.seconds = time.monotonic() - job.started
    if job.process.returncode:
        job.problem, job.traceback = error_in(job.executed)
        job.problem = job.problem or (output.strip() or f"exit code {job.process.returncode}").splitlines()[-1]
        job.state = "stopped" if job.problem.startswith(("Stopped", "KeyboardInterrupt")) else "failed"
        return
    notebook = nbformat.read(job.executed, 4)
    notebook.metadata["odnlib_fingerprint"] = job.fingerprint()
    results.replace(job.executed, lambda path: nbformat.write(notebook, path))
    job.state = "done"


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
    deadline, stopped = start + (arguments.time_budget or math.inf), ""
    slurm = Path(arguments.results_dir).resolve() / arguments.profile / "slurm"
    array = (
        cluster.executor(dict(arguments.slurm), slurm, arguments.array_parallelism, arguments.device)
        if arguments.slurm
        else None
    )
    every = {folder: recipe for job in jobs for recipe, folder in zip(job.recipes, job.folders, strict=True)}
    for folder, recipe in [*every.items(), *(run for job in jobs for run in job.known_later.items())]:
        state = results.status(recipe, folder)
        if state != "missing" and (arguments.fresh or (arguments.stale and state == "stale")):
            with held(folder, wait=False):
                results.set_aside(folder)
    if array is not None:
        train = cluster.Train(str(arguments.data_dir), str(slurm.parents[1]), arguments.device)
        tasks = cluster.submit(every, slurm, train, array)
        print(f"{len(tasks)} runs are with Slurm; --collect instead of --slurm shows how far they are", flush=True)
        cluster.wait(tasks, deadline)
    if array is not None or arguments.collect:
        leave_out_unfinished(jobs, slurm)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        for last in (False, True):
            chosen = [job for job in jobs if job.reads_all == last and job.state == "waiting"]
            run_side_by_side(chosen, arguments.slots, deadline)
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
        again = "the same command" + " without --fresh" * arguments.fresh
        print(f"stopped ({stopped}): what was trained is kept, and {again} goes on from there")
        return 75
    states = {job.state for job in jobs}
    return 1 if "failed" in states else 75 if states & {"stopped", "queued"} else 0


def leave_out_unfinished(jobs: list[Job], slurm: Path) -> None:
    """Notebooks whose runs are not all there say why; `slurm` is where `cluster` keeps its notes."""
    queued, tasks = cluster.queued() if shutil.which("squeue") else set(), cluster.submitted(slurm)
    for job in jobs:
        states = dict(zip(job.folders, map(results.status, job.recipes, job.folders), strict=True))
        missing = [folder for folder, state in states.items() if state in ("missing", "partial")]
        failed = [folder.name for folder in missing if tasks.get(folder.name) not in queued]
        if missing:
            job.state, job.problem = ("failed" if failed else "queued"), f"{len(missing)} runs are missing"
            job.traceback = "\n".join(f"{name}\n{cluster.log_of(name, slurm)}" for name in failed)


def run_side_by_side(jobs: list[Job], slots: list[dict[str, str]], deadline: float = math.inf) -> None:
    """Run jobs, as many at a time as there are slots (`plan.slots`), telling where each is.

    Raises:
        KeyboardInterrupt, TimeoutError: asked to stop, or past `deadline` (time.monotonic); all notebooks have ended.
    """
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for slot in slots:
        free.put(slot)
    with ThreadPoolExecutor(len(slots)) as pool:
        pending = {pool.submit(execute, job, free): job for job in jobs}
        try:
            watch(pending, deadline)
        except (KeyboardInterrupt, TimeoutError):
            pool.shutdown(wait=False, cancel_futures=True)
            stop(list(pending.values()))
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
    with STARTING:
        running = [job.process for job in jobs if job.process is not None and job.process.poll() is None]
        for job in jobs:
            if job.process is None:
                job.state = "stopped"
    asked: set[int] = set()  # kernels
    served: set[int] = set()  # notebooks that have, or had, a kernel
    end = time.monotonic() + STOP_WITHIN
    while running := [process for process in running if process.poll() is None]:
        with contextlib.suppress(psutil.NoSuchProcess, KeyboardInterrupt):
            for process in running:
                kernels = psutil.Process(process.pid).children(recursive=True)
                for kernel in (x for x in kernels if x.pid not in asked and not ignores_interrupts(x.pid)):
                    kernel.send_signal(signal.SIGINT)
                    asked.add(kernel.pid)
                served |= {process.pid} if kernels else set()
                if process.pid not in served:
                    process.terminate()
                if time.monotonic() > end:
                    process.kill()  # its kernel follows; what was kept before is whole
            time.sleep(0.5)


def ignores_interrupts(pid: int) -> bool:
    """Whether SIGINT would be lost on a process, as on a kernel between two cells."""
    try:
        (mask,) = [x.split()[1] for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigIgn")]
    except (OSError, ValueError):
        return False
    return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)
