"""Execute the notebooks through papermill, side by side, each in a process of its own, and say what came of each.

./run_all.sh [--profile smoke|reduced|quick|paper] [--rule released|printed|equal] [--rows mnist,svhn]
             [--only 06,09] [--seeds 0,1,2] [--set NAME=VALUE ...] [--jobs NUMBER|auto] [--fresh]
             [--data-dir FOLDER] [--results-dir FOLDER] [--device auto|cpu|cuda|mps] [--setup-only] [--help]
./run_all.sh --images FOLDER --target PERCENT [...]   10_your_dataset on your own images, a folder for each class;
             e.g. --set max_bytes=100000, --set image_size=128, --set flip=false where left and right matter
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import permutations, product
from pathlib import Path

import papermill
import torch

from odnlib import experiment, files, recipes
from odnlib.__main__ import EXIT_REFUSED, build_shared_options, parse_value, run_command, split_at_commas
from odnlib.data import DataError
from odnlib.paper import TABLE_1
from odnlib.presets import default_rule
from run_show import ProgressBlock, summarise_launch

NOTEBOOKS = {path.name[:2]: path for path in sorted((files.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
ROW_OF_NOTEBOOK = dict(zip(("01", "02", "03", "04", "05"), TABLE_1, strict=True))
ABLATION_NUMBER, COMPARISON_NUMBER, BENCHMARK_NUMBER, OWN_IMAGES_NUMBER = "06", "07", "08", "10"
OWN_IMAGES_PARAMETERS = {"max_bytes": int, "image_size": int, "flip": bool}  # that --set sets of its notebook
OWN_IMAGES_SETTINGS = (*OWN_IMAGES_PARAMETERS, "depth_epochs", "batch_size", "rate", "bfloat16", "threads")


@dataclass
class NotebookJob:
    """Holds one notebook to execute: paths, parameters, state (waiting, running, done, failed or refused), the lines
    that it printed, why it did not end well, and its exit code.
    """

    source: Path
    executed: Path
    parameters: dict[str, object]
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    printed: list[str] = field(default_factory=list)
    problem: str = ""
    code: int = 0

    def execute(self, free: list[dict[str, str]], alive: int) -> None:
        """Execute the notebook, in a process that ends when the pipe `alive` does, with one of the `free` devices."""
        slot, self.state, self.began = free.pop(), "running", time.time()
        arguments = [self.source, self.executed, json.dumps(self.parameters), str(alive)]
        command = [sys.executable, files.ROOT / "run_one.py", *arguments]
        environment = os.environ | slot | {"ODN_NOTEBOOK": self.executed.stem}  # for status.json
        with tempfile.TemporaryFile("w+") as errors:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
            with subprocess.Popen(command, env=environment, pass_fds=[alive], **streams) as process:
                for line in process.stdout:
                    self.printed.append(line.rstrip())
            errors.seek(0)
            told = re.sub(r"\x1b\[[0-9;]*m", "", errors.read())
            told = re.sub(r"^\[IPKernelApp\].*\n?", "", told, flags=re.MULTILINE)  # a kernel's last word as it is ended
            self.problem = told.strip() or f"exit code {process.returncode}"
        free.append(slot)
        self.code, self.seconds = process.returncode, time.time() - self.began
        self.state = {0: "done", EXIT_REFUSED: "refused"}.get(self.code, "failed")


def percent(text: str) -> float:
    """Return the number of a text such as "90" or "90%"; argparse.ArgumentTypeError if it is none."""
    try:
        return float(text.rstrip("% "))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage, such as 90") from None


def build_parser() -> argparse.ArgumentParser:
    """Return the argparse parser of run_all.sh."""
    whole = argparse.ArgumentParser(usage=__doc__.partition("\n\n")[2], parents=[build_shared_options()])
    several = {"type": split_at_commas, "default": []}
    whole.add_argument("--rows", **several, help="mnist,emnist,fashion_mnist,svhn,cifar10 (default: all)")
    whole.add_argument("--only", **several, help="numbers of notebooks, e.g. 06,09: exactly these")
    whole.add_argument("--seeds", **several, help="e.g. 0,1,2 (default: 0)")
    whole.add_argument("--jobs", default="", help="side by side: a number, or auto (default: 1; in smoke, auto)")
    whole.add_argument("--images", type=Path, help="own images, a folder for each class (default profile: quick)")
    enough = "accuracy on validation that is enough for own images, e.g. 90"
    whole.add_argument("--target", type=percent, metavar="PERCENT", help=enough)
    whole.set_defaults(profile="")
    return whole


def choose_notebooks(arguments: argparse.Namespace) -> list[str]:
    """Return the numbers of the notebooks to execute, e.g. ["01", "07"], by the parsed --only, --rows and --images."""
    if arguments.images:
        return [OWN_IMAGES_NUMBER]
    if arguments.only:
        return [number.zfill(2) for number in arguments.only]
    numbers = [number for number, row in ROW_OF_NOTEBOOK.items() if row in (arguments.rows or TABLE_1)]
    if not arguments.rows:  # without a warm-up there is nothing to ablate
        numbers += [] if (arguments.rule or default_rule(arguments.profile)) == "equal" else [ABLATION_NUMBER]
        numbers += [x for x in NOTEBOOKS if x > BENCHMARK_NUMBER and arguments.profile == "smoke"]
    return [*numbers, COMPARISON_NUMBER]


def list_problems_of_own_images(folder: Path, target_pct: float | None) -> list[str]:
    """Return in words what speaks against a folder of own images and a target, as far as can be seen in a moment."""
    sys.path.insert(0, str(files.ROOT / "notebooks"))
    from studies import answer, own  # they take seconds, and the other notebooks do without

    problems = []
    for check, given in ((own.list_images, str(folder)), (answer.check_percent, target_pct)):
        try:
            if given is not None:
                check(given)
        except (recipes.RecipeError, DataError) as error:
            problems.append(str(error))
    return problems


def plan_jobs(arguments: argparse.Namespace) -> tuple[list[NotebookJob], list[recipes.Recipe]]:
    """Return (jobs, recipes): the notebooks to execute, a dataset's once per seed, and the recipes of these datasets.

    RecipeError has a line for each problem with datasets, seeds and settings; studies check their own when executed.
    """
    arguments.profile = arguments.profile or ("quick" if arguments.images else "smoke")
    rows, seeds, numbers = arguments.rows, [*map(parse_value, arguments.seeds)], choose_notebooks(arguments)
    own = {name: x for name, x in arguments.overrides if arguments.images and name in OWN_IMAGES_PARAMETERS}
    fields = {*(OWN_IMAGES_PARAMETERS if arguments.images else ()), *recipes.SETTING_FIELDS}
    overrides = {name: x for name, x in arguments.overrides if name not in own and name in fields}
    useful = OWN_IMAGES_SETTINGS if arguments.images else recipes.SETTING_FIELDS
    problems = [recipes.unknown_parameter_message(x, useful) for x, _ in arguments.overrides if x not in fields]
    wrong = [name for name, x in own.items() if type(x) is not OWN_IMAGES_PARAMETERS[name]]
    meant = {"max_bytes": "a number of bytes, such as 100000", "image_size": "a number of pixels, such as 64"}
    problems += [f"{x} {own[x]!r} is not {meant.get(x, 'true or false')}: --set {x}=..." for x in wrong]
    for name, asked, known in (("rows", rows, TABLE_1), ("only", numbers, NOTEBOOKS), ("seeds", seeds, seeds)):
        problems += [f"{name}: there is no {x!r}; choose from {', '.join(known)}" for x in asked if x not in known]
        problems += [f"{name}: {asked} name one twice"] if len(set(asked)) < len(asked) else []
    if (arguments.images is None) != (arguments.target is None):
        problems.append("images and target belong together: --images FOLDER --target 90 (% right that are enough)")
    if arguments.images:
        problems += list_problems_of_own_images(arguments.images, arguments.target)
    shared = overrides | {"profile": arguments.profile, "rule": arguments.rule}
    trained = [row for number, row in ROW_OF_NOTEBOOK.items() if number in numbers]
    combinations = product(trained or ["mnist"], recipes.VARIANTS, seeds or [0])
    try:
        runs = recipes.resolve_all(shared | {"row": x, "variant": y, "seed": seed} for x, y, seed in combinations)
    except recipes.RecipeError as error:
        problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise recipes.RecipeError("\n".join(problems))
    smoke, folder = arguments.profile == "smoke", arguments.results_dir.resolve() / arguments.profile / "notebooks"
    given = {name: str(getattr(arguments, name).resolve()) for name in ("results_dir", "data_dir")}
    given |= {"profile": arguments.profile, "device": arguments.device, "fresh": arguments.fresh}
    given["since"] = datetime.now(UTC).isoformat(timespec="seconds") if arguments.fresh else ""
    given |= {"rule": arguments.rule} if arguments.rule else {}
    given |= {"rows": rows, "row": rows[0], "pairs": [*permutations(rows, 2)]} if rows else {}
    given |= {"seeds": seeds, "seed": seeds[0]} if seeds else {}
    if arguments.images:
        given |= {"images": str(arguments.images.expanduser().resolve()), "target_pct": arguments.target}
        given |= own
    given |= {} if smoke else {"architectures": ["", "resnet18"]}  # each row's own, and the same for all
    jobs = []
    for number in sorted(numbers):
        source = NOTEBOOKS[number]
        defaults = {name: x["default"] for name, x in papermill.inspect_notebook(str(source)).items()}
        all_used = number == OWN_IMAGES_NUMBER  # of one's own images none is left out
        settings = {x: y for x, y in overrides.items() if not (all_used and x.endswith("_images"))}
        given["overrides"] = settings
        searches = [x for x in runs if x.row == ROW_OF_NOTEBOOK.get(number) and x.variant == "odn"]
        labels = {x.name.removeprefix(f"{x.row}-odn"): {"row": x.row, "seed": x.seed, "fresh": False} for x in searches}
        for label, of_run in (labels or {"": {}}).items():
            parameters = {name: x for name, x in (given | of_run).items() if name in defaults}
            if arguments.images:
                label = f"-{re.sub('[^a-z0-9]+', '_', arguments.images.name.lower())}-{arguments.target:g}"
                label += "".join(f"-{name}_{x}".lower() for name, x in own.items())
            jobs.append(NotebookJob(source, folder / f"{source.stem}{label}.ipynb", parameters))
    return jobs, runs


def divide_devices(jobs: str, device: str, threads: int | None) -> list[dict[str, str]]:
    """Return a dict of environment variables for each notebook at a time: its GPU or its number of CPU threads.

    `jobs` is a number as text, or auto: one per GPU, or as many as fit with so many `threads` each. Else RecipeError.
    """
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    own = gpus.split(",") if device == "cuda" else []
    most = len(own) or (1 if device.startswith(("cuda", "mps")) else torch.get_num_threads())
    auto = len(own) or most // (threads or most) or 1
    number = auto if jobs == "auto" else int(jobs) if jobs.isdigit() else 0
    if not 1 <= number <= most:
        raise recipes.RecipeError(f"jobs {jobs!r}: {device} has room for 1 to {most}; choose one of them, or auto")
    shares = [{"OMP_NUM_THREADS": str(most // number)} if number > 1 else {}] * number
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in own[:number]] or shares


def rename_old_runs(arguments: argparse.Namespace, runs: list[recipes.Recipe]) -> None:
    """Rename the run folders that --fresh concerns, before notebooks that share them start executing."""
    rows = [ROW_OF_NOTEBOOK.get(number) for number in choose_notebooks(arguments)]
    folders = [experiment.folder_of_run(run, arguments.results_dir) for run in runs if run.row in rows]
    if arguments.profile == "smoke" and not (arguments.rows or arguments.only or arguments.images):
        folders = sorted((arguments.results_dir / "smoke" / "runs").glob("[!.]*"))
    for folder in (x for x in folders if x.exists() and ".replaced" not in x.name):
        with files.lock_folder(folder, wait=False):
            files.rename_replaced_folder(folder)


def execute_jobs(jobs: list[NotebookJob], slots: list[dict[str, str]], block: ProgressBlock) -> None:
    """Execute notebooks, as many at a time as there are `slots` (see `divide_devices`), while the block shows them."""
    (alive, end), pool = os.pipe(), ThreadPoolExecutor(len(slots))
    pending = {pool.submit(job.execute, slots, alive) for job in jobs}
    try:
        while pending := wait(pending, block.every).not_done:
            block.show()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        os.close(end)  # processes that are left end


def run_notebooks(arguments: argparse.Namespace) -> int:
    """Execute the notebooks that the parsed command line asks for; return the exit code, of any that failed, else 0."""
    start, (jobs, runs), smoke = time.monotonic(), plan_jobs(arguments), arguments.profile == "smoke"
    device, results = experiment.choose_device(arguments.device), arguments.results_dir.resolve() / arguments.profile
    slots = divide_devices(arguments.jobs or ("auto" if smoke else "1"), device, runs[0].threads)
    for folder in (results / "notebooks", *([] if smoke else [arguments.data_dir])):
        folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=results / "notebooks").close()  # fails where one cannot write
    if arguments.fresh:
        rename_old_runs(arguments, runs)
    with ProgressBlock(jobs, results / "runs") as block:
        for last in (False, True):
            execute_jobs([x for x in jobs if (x.source == NOTEBOOKS[COMPARISON_NUMBER]) == last], slots, block)
        block.show()
    print(f"{len(jobs)} notebook{'s' * (len(jobs) > 1)} in {time.monotonic() - start:.0f} s")
    unfinished = {job.source.stem[:2] for job in jobs if job.state != "done"}
    numbers = {job.source.stem[:2] for job in jobs} - unfinished
    rows = [row for number, row in ROW_OF_NOTEBOOK.items() if number in numbers]
    print(*summarise_launch(arguments, jobs, rows, runs), sep="\n")
    return min((job.code or 1 for job in jobs if job.state != "done"), default=0)


if __name__ == "__main__":
    sys.exit(run_command(run_notebooks, build_parser().parse_args()))
