"""Real processes for the tests that kill: forked from a server that has imported everything, so each starts at once."""

import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

from odnlib import __main__, experiment, trainer
from odnlib.recipes import Recipe
from tests.conftest import tiny

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.preloaded"])


def train(recipe: Recipe, results_dir: Path, die_at: int | None = None) -> None:
    """Train, saving after every step; `die_at`: SIGKILL ourselves instead of renaming a file for so manieth a time."""
    trainer.SAVE_EVERY_SECONDS = trainer.MIN_SECONDS_BETWEEN_SAVES = 0.0
    renamed, rename = 0, Path.replace

    def replace(path, target):
        nonlocal renamed
        renamed += 1
        if renamed == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.replace = replace
    experiment.run(recipe, tiny, results_dir)


def command(arguments: list[str], output: Path, limits: dict[int, int] | None = None) -> None:
    """`python -m odnlib ...` with its output in a file, under limits of the system."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    for which, limit in (limits or {}).items():
        resource.setrlimit(which, (limit, limit))
    sys.exit(__main__.main(arguments))


def start(target, *arguments):
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def run_command(arguments: list[str], output: Path, limits: dict[int, int] | None = None) -> tuple[int, str]:
    """(exit code, output) of `command`; whatever goes wrong, its user sees no traceback."""
    process = start(command, arguments, output, limits)
    process.join(120)
    assert "Traceback" not in output.read_text()
    return process.exitcode, output.read_text()
