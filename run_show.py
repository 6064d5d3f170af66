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

from odnlib import experiment, files
from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe, read_run

REPORT_EVERY_SECONDS, TRACEBACK_LINES = 60, 12  # where the output is a file; shown of a notebook that failed
TORCHVISION_FOLDERS = ("MNIST/raw", "EMNIST/raw", "FashionMNIST/raw", "train_32x32.mat", "cifar-10-batches-py")


def notebook_title(job) -> str:
    """Return the title of a `NotebookJob` as people are told it: number, heading and, unless 0, seed."""
    if job.parameters.get("images"):
        return "10 own images"
    heading = nbformat.read(job.source, 4).cells[0].source.splitlines()[0].strip("# ")
    seed = job.parameters.get("seed")
    return f"{job.source.stem[:2]} {heading}" + (f", seed {seed}" if seed else "")


def describe_progress(job, runs: Path) -> str:
    """Return how far a `NotebookJob` is, in words: its state or what its status.json in the folder `runs` tells."""
    if job.state != "running":
        return f"{job.state} ({job.seconds:.0f} s)" if job.seconds else job.state
    told = [(file.stat().st_mtime, file) for file in runs.glob("*/status.json")]
    for _, file in sorted((x for x in told if x[0] > job.began), reverse=True):
        now, recipe = files.read_json(file), files.read_json(file.with_name("recipe.json"))
        if now.get("notebook") == job.executed.stem and not file.with_name("result.json").exists():
            best = f", {now['val_acc_pct']:.1f} % right" if now["val_acc_pct"] else ""
            sure = now["seconds_left"] and now["stage_epochs"] >= 1
            left = f", {tqdm.format_interval(now['seconds_left'])} left of this training" if sure else ""
            own, told = recipe["row"].startswith("own_"), f"{recipe['row']} with {recipe['architecture']}"
            told = f"width {recipe['width']}, seed {recipe['seed']}" if own else told
            return f"{told}, {now['where']}{best}{left}"
    return job.state


class ProgressBlock(AbstractContextManager):
    """Shows how far notebooks are: on a terminal a text for each and a bar below, elsewhere a text every minute.

    What the notebook of own images prints, such as the minutes it will take, is shown as it comes.
    """

    def __init__(self, jobs: list, runs: Path):
        self.jobs, self.runs, self.began = {notebook_title(job): job for job in jobs}, runs, time.time()
        self.drawn = sys.stdout.isatty()
        self.every = 1 if self.drawn else REPORT_EVERY_SECONDS
        look = {"file": sys.stdout, "dynamic_ncols": True, "disable": not self.drawn}
        self.lines = [tqdm(position=i, bar_format="{desc}", **look) for i in range(len(jobs))]
        form = "{n_fmt} of {total_fmt}{postfix} |{bar:40}|"
        look["disable"] |= len(jobs) == 1  # it would not move
        self.bar = tqdm(total=len(jobs), position=len(jobs), bar_format=form, **look)

    def show(self) -> None:
        """Show the present state; the time left is that of as many notebooks as are left, at the pace so far."""
        told = [f"{name}: {describe_progress(job, self.runs)}" for name, job in self.jobs.items()]
        for job in (x for x in self.jobs.values() if x.parameters.get("images")):
            while job.printed:
                tqdm.write(job.printed.pop(0))
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


def summarise_row(row: str, runs: list[Recipe], results_dir: Path) -> str:
    """Return a text of what a dataset's runs found (means over seeds), depth and accuracy, in brackets the paper's."""
    paper, found = TABLE_1[row], {"odn": [], "full": []}
    for run in (run for run in runs if run.row == row):
        found[run.variant].append(read_run(experiment.folder_of_run(run, results_dir)))
    means = [(fmean(x.depth for x in of), fmean(x.test_acc_pct for x in of)) for of in found.values()]
    (depth, odn), (whole, full) = means
    text = f"{paper.title:<14} depth {depth:g} of {whole:g} ({paper.odn.depth}): {odn:.2f} % ({paper.odn.test_acc_pct})"
    return f"{text}, the whole network {full:.2f} % ({paper.full.test_acc_pct})"


def summarise_launch(asked: argparse.Namespace, jobs: list, rows: list[str], runs: list[Recipe]) -> Iterator[str]:
    """Yield the lines of text at the end of run_all.sh: what was found, what failed and why, and where results lie.

    `asked` is the parsed command line, `rows` are the datasets whose `NotebookJob`s are done, `runs` their recipes.
    """
    smoke, place = asked.profile == "smoke", asked.results_dir.resolve() / asked.profile
    if rows:
        yield f"test accuracy{' on stand-in images, an illustration' * smoke} (in brackets the paper's)"
        yield from (f"  {summarise_row(row, runs, asked.results_dir)}" for row in rows)
    for job in (job for job in jobs if job.state != "done"):
        yield f"{job.state}: {notebook_title(job)}" + f", {job.executed}" * (job.state == "failed")
        yield from (f"  {line}" for line in job.problem.splitlines()[-TRACEBACK_LINES:])
    if asked.images and jobs[0].state == "done":
        for about in (x for x in place.glob("export/*/model.json") if x.stat().st_mtime >= jobs[0].began):
            exported = files.read_json(about)
            yield f"model.onnx ({exported['onnx_bytes'] / 1000:,.0f} kB), model card and more: {about.parent}"
            yield f"new photographs: {sys.executable} {about.parent / 'predict.py'} FOLDER --out answers.csv"
        yield f"how it was found, with figures: {jobs[0].executed.with_suffix('.html')}"
    if any("compare" in job.source.stem and job.state == "done" for job in jobs):  # it is of today
        yield f"report: {place / 'report.html'}"
    places = zip(TABLE_1, TORCHVISION_FOLDERS, strict=True)
    there = ",".join(row for row, name in places if (asked.data_dir / name).exists())
    if smoke and there:
        yield f"real images lie in {asked.data_dir}; to train with them: ./run_all.sh --profile quick --rows {there}"
