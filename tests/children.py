"""Real processes for the tests that kill: forked from a server that has imported everything, so each starts at once."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from odnlib import __main__, experiment, trainer
from odnlib.data import Data
from tests.conftest import tiny_recipe, tiny_split

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.preloaded"])


def tiny() -> Data:
    return Data(tiny_split(70, 1), tiny_split(30, 2), tiny_split(30, 3))


def train(results_dir: Path, save_every: float, die_at: int | None, settings: dict) -> None:
    """Train the tiny recipe; `die_at`: SIGKILL ourselves instead of renaming a file for so manieth a time."""
    torch.set_num_threads(1)
    trainer.SAVE_EVERY, trainer.SAVES_APART = save_every, 0.0
    renamed, rename = 0, Path.replace

    def replace(path, target):
        nonlocal renamed
        renamed += 1
        if renamed == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.replace = replace
    experiment.run(tiny_recipe(**settings), tiny, results_dir)


def command(arguments: list[str], said: Path, limits: dict[int, int], user: int | None) -> None:
    """`python -m odnlib ...` with its output in a file, under limits of the system, as another user."""
    torch.set_num_threads(1)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    for which, limit in limits.items():
        resource.setrlimit(which, (limit, limit))
    if user is not None:
        os.setuid(user)
    sys.exit(__main__.main(arguments))


def hold(folder: Path, seconds: float) -> None:
    """Hold a run's folder for a while."""
    with experiment.held(folder, wait=False):
        time.sleep(seconds)


def start(target, *arguments):
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def run_command(arguments, said, limits=None, user=None):
    """(exit code, what it said)."""
    process = start(command, [str(x) for x in arguments], said, limits or {}, user)
    process.join(120)
    return process.exitcode, said.read_text()
