"""Train the runs of many notebooks as one Slurm array, through submitit: one task per run, one GPU per task.

A task that Slurm signals (its time is up, or another job wants the place) keeps what it is at, is queued again and goes
on from there. Which task makes which run stands in results/<profile>/slurm/submitted.json, beside submitit's logs.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import submitit
from tqdm.auto import tqdm

from odnlib import data, experiment, results
from odnlib.checkpoint import Stopped
from odnlib.recipes import Recipe, RecipeError

LOOK_EVERY, QUESTIONS = 5.0, 12  # seconds between two questions to Slurm, and how often one is put
LOG_LINES = 12  # of a failed task, that are shown
TIMEOUTS = 10**6  # a run may be stopped and go on that often


class Train:
    """What every task does with its recipe; submitit asks `checkpoint` what to do after a requeue: the same again."""

    def __init__(self, data_dir: str, results_dir: str, device: str):
        self.data_dir, self.results_dir, self.device = data_dir, results_dir, device

    def __call__(self, recipe: Recipe) -> str:
        start = time.time()
        images = data.load(recipe, self.data_dir, experiment.choose_device(self.device))
        try:
            return str(experiment.run(recipe, images, Path(self.results_dir)))
        except Stopped as stop:
            if stop.why == "SIGUSR2":  # all is kept, and submitit's handler is in force again: it requeues
                signal.raise_signal(signal.SIGUSR2)
            raise  # SIGTERM: cancelled, or preempted by Slurm, which then requeues by itself
        finally:
            gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
            print(f"{recipe.name} held GPU {gpu} from {start} to {time.time()}", flush=True)

    def checkpoint(self, recipe: Recipe) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self, recipe)


def minutes(text: str) -> int:
    """Slurm's times, 90, 4:00:00 or 2-12:00:00, in whole minutes.

    Raises:
        RecipeError: for anything else.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d)(?::(\d\d))?)?", text)
    if not match:
        raise RecipeError(f"slurm time {text!r} is not a time such as 90 (minutes), 4:00:00 or 2-12:00:00")
    days, first, second, third = (int(part or 0) for part in match.groups())
    hours = match[1] or match[4]  # D-H, D-H:MM, D-H:MM:SS and H:MM:SS; otherwise M or M:SS
    parts = (first, second, third) if hours else (0, first, second)
    return max(1, -(-(days * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]) // 60))


def executor(options: dict[str, str], folder: Path, parallelism: int, device: str) -> submitit.SlurmExecutor:
    """Raises RecipeError where Slurm or a partition is missing."""
    if not shutil.which("sbatch"):
        raise RecipeError("slurm: there is no sbatch here; start from a machine that submits to the cluster")
    if "partition" not in options:
        raise RecipeError("slurm: name a partition, e.g. --slurm partition=gpu,time=4:00:00")
    if parallelism < 1:
        raise RecipeError(f"array-parallelism {parallelism} is not a whole number from 1")
    made = submitit.SlurmExecutor(folder=folder, max_num_timeout=TIMEOUTS)
    given = {"job_name": "odn", "array_parallelism": parallelism, "gres": "gpu:1"}
    given |= {name: int(value) if value.isdigit() else value for name, value in options.items()}
    given["time"] = minutes(options.get("time", "60"))
    if device == "cpu" and "gres" not in options:
        del given["gres"]
    valid = made._valid_parameters()  # those that submitit names itself
    others = {name: value for name, value in given.items() if name not in valid}
    own = {name: value for name, value in given.items() if name in valid}
    made.update_parameters(additional_parameters=others | {"requeue": True}, **own)
    return made


def queued() -> set[str]:
    """Tasks of ours that Slurm has not done with, as ARRAY_TASK."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    for _ in range(QUESTIONS):  # a busy controller may leave one unanswered
        try:
            return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())
        except subprocess.SubprocessError as problem:
            said = str(problem.stderr or problem).strip()
        time.sleep(LOOK_EVERY)
    raise Stopped(f"squeue does not answer ({said}): what is queued goes on, and --collect shows it later")


def submitted(folder: Path) -> dict[str, str]:
    """Name of a run -> the task that was last to make it."""
    return results.read_json(folder / "submitted.json") or {}


def submit(wanted: dict[Path, Recipe], folder: Path, train: Train, made: submitit.SlurmExecutor) -> list[str]:
    """Send what is neither finished nor under way to Slurm as one array (`executor`); the tasks to wait for.

    Raises:
        RecipeError: where Slurm refuses it.
    """
    open_ = ("missing", "partial")  # what is stale needs a word from its owner
    pending = {path: recipe for path, recipe in wanted.items() if results.status(recipe, path) in open_}
    tasks, waiting = submitted(folder), queued()
    new = {path: recipe for path, recipe in pending.items() if tasks.get(path.name) not in waiting}
    if new:
        try:
            jobs = made.map_array(train, list(new.values()))
        except submitit.core.utils.FailedJobError as refusal:
            raise RecipeError(f"slurm: {str(refusal).strip()}") from None
        tasks |= {path.name: job.job_id for path, job in zip(new, jobs, strict=True)}
        results.write_json(folder / "submitted.json", tasks)
    return [tasks[path.name] for path in pending]


def wait(tasks: list[str], deadline: float) -> None:
    """Until Slurm has done with all of these tasks, with a bar.

    Raises:
        Stopped: past `deadline` (time.monotonic).
    """
    with tqdm(total=len(tasks), desc="Slurm", unit="run") as bar:
        while left := queued() & set(tasks):
            bar.update(len(tasks) - len(left) - bar.n)
            if time.monotonic() > deadline:
                raise Stopped("the time budget is used up: what is queued goes on, and --collect shows it later")
            time.sleep(LOOK_EVERY)
        bar.update(len(tasks) - bar.n)


def log_of(run: str, folder: Path) -> str:
    """The end of what the task said that was last to make a run."""
    task = submitted(folder).get(run, "")
    files = sorted(folder.glob(f"{task}_*_log.err")) if task else []
    text = "".join(file.read_text(errors="replace") for file in files)
    return "\n".join(text.splitlines()[-LOG_LINES:]) or f"{run}: no log; {task or 'never submitted'}"
