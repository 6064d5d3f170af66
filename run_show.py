"""What run_all.py shows: how far the notebooks are while they run, and at the end what came out and where it lies."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean

import nbformat
from tqdm import tqdm

from odnlib import experiment, files, recipes
from odnlib.paper import TABLE_1

REPORT_EVERY, LAST_LINES = 60, 12  # seconds, where the output is a file; lines of a traceback
PLACES = ("MNIST/raw", "EMNIST/raw", "FashionMNIST/raw", "train_32x32.mat", "cifar-10-batches-py")
REAL = dict(zip(TABLE_1, PLACES, strict=True))  # where torchvision keeps real images in data_dir


def title(job) -> str:
    """Return the number and the heading of a notebook, which say in words what it does."""
    heading = nbformat.read(job.source, 4).cells[0].source.splitlines()[0].strip("# ")
    seed = job.parameters.get("seed")
    return f"{job.source.stem[:2]} {heading}" + (f", seed {seed}" if seed else "")


def where(job, runs: Path) -> str:
    """Return how far a notebook is, in words: while it is running, what the latest status.json of its runs tells."""
    if job.state != "running":
        return f"{job.state} ({job.seconds:.0f} s)" if job.seconds else job.state
    told = [(file.stat().st_mtime, file) for file in runs.glob("*/status.json")]
    for _, file in sorted((x for x in told if x[0] > job.began), reverse=True):
        now, recipe = files.read_json(file), files.read_json(file.with_name("recipe.json"))
        if now.get("notebook") == job.executed.stem and not file.with_name("result.json").exists():
            best = f", {now['val_acc_pct']:.1f} % right" if now["val_acc_pct"] else ""
            left = f", {now['seconds_left']:.0f} s left" if now["seconds_left"] else ""
            return f"{recipe['row']} with {recipe['architecture']}, {now['where']}{best}{left}"
    return job.state


class Block(AbstractContextManager):
    """Shows how far notebooks are: on a terminal a line for each and a bar below, elsewhere a line a minute."""

    def __init__(self, jobs: list, runs: Path):
        self.jobs, self.runs, self.began = {title(job): job for job in jobs}, runs, time.time()
        self.drawn = sys.stdout.isatty()
        self.every = 1 if self.drawn else REPORT_EVERY
        look = {"file": sys.stdout, "dynamic_ncols": True, "disable": not self.drawn}
        self.lines = [tqdm(position=i, bar_format="{desc}", **look) for i in range(len(jobs))]
        form = "{n_fmt} of {total_fmt}{postfix} |{bar:40}|"
        self.bar = tqdm(total=len(jobs), position=len(jobs), bar_format=form, **look)

    def show(self) -> None:
        """Tell the present state; the time left is that of as many notebooks as are left, at the pace so far."""
        told = [f"{name}: {where(job, self.runs)}" for name, job in self.jobs.items()]
        states, ended = [job.state for job in self.jobs.values()], sum(job.seconds > 0 for job in self.jobs.values())
        minutes = (time.time() - self.began) / 60 * (len(told) - ended) / ended if ended else 0
        left = f"about {minutes:.0f} min left" if minutes > 1 else "less than a minute left" if minutes else ""
        for line, text in zip(self.lines, told, strict=True):
            line.set_description_str(text)
        self.bar.n = ended
        self.bar.set_postfix_str(left)
        if not self.drawn:
            shown = [text for text, state in zip(told, states, strict=True) if state == "running" or ended == len(told)]
            print("; ".join([f"{ended} of {len(told)}" + f", {left}" * bool(left), *shown]), flush=True)

    def __exit__(self, *_: object) -> None:
        for line in (*self.lines, self.bar):
            line.close()  # and leave it on the screen


def came_out(row: str, runs: list[recipes.Recipe], results_dir: Path) -> str:
    """Return what the runs of a row found (means of seeds), in brackets the paper's: depth and test accuracies."""
    paper, found = TABLE_1[row], {"odn": [], "full": []}
    for run in (run for run in runs if run.row == row):
        found[run.variant].append(recipes.read_run(experiment.run_folder(run, results_dir)))
    means = [(fmean(x.depth for x in of), fmean(x.test_acc_pct for x in of)) for of in found.values()]
    (depth, odn), (whole, full) = means
    text = f"{paper.title:<14} depth {depth:g} of {whole:g} ({paper.odn.depth}): {odn:.2f} % ({paper.odn.test_acc_pct})"
    return f"{text}, the whole network {full:.2f} % ({paper.full.test_acc_pct})"


def conclusion(asked: argparse.Namespace, jobs: list, rows: list[str], runs: list[recipes.Recipe]) -> Iterator[str]:
    """Yield lines that say what came out of the launch `asked`, what failed and why, and where it lies.

    Args:
        rows: whose notebooks are done, with all their `runs`.
    """
    smoke, place = asked.profile == "smoke", asked.results_dir.resolve() / asked.profile
    if rows:
        yield f"test accuracy{' on stand-in images, an illustration' * smoke} (in brackets the paper's)"
        yield from (f"  {came_out(row, runs, asked.results_dir)}" for row in rows)
    for job in (job for job in jobs if job.state != "done"):
        yield f"{job.state}: {title(job)}, {job.executed}"
        yield from (f"  {line}" for line in job.printed.splitlines()[-LAST_LINES:])
    if asked.images and jobs[0].state == "done":
        for about in (x for x in place.glob("export/*/model.json") if x.stat().st_mtime >= jobs[0].began):
            found = "depth {depth}: {val_acc_pct:.1f} % on validation, {test_acc_pct:.1f} % on test"
            yield f"{found.format(**files.read_json(about))}; network and model card: {about.parent}"
        yield f"how it was found: {jobs[0].executed}"
    if any("compare" in job.source.stem and job.state == "done" for job in jobs):  # it is of today
        yield f"report: {place / 'report.html'}"
    there = ",".join(row for row, name in REAL.items() if (asked.data_dir / name).exists())
    if smoke and there:
        yield f"real images lie in {asked.data_dir}; to train with them: ./run_all.sh --profile quick --rows {there}"
