"""Which notebooks to run, with which parameters, and whether one is done already."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from pathlib import Path

import nbformat
import pandas as pd
import torch

from odnlib import ROOT, results
from odnlib.experiment import choose_device
from odnlib.recipes import EXAMPLE, PROFILES, VARIANTS, Recipe, RecipeError, resolve, usual_protocol
from odnlib.studies import families, reuse, trend
from odnlib.studies.ablation import ARMS
from odnlib.studies.trend import COMMON

NOTEBOOKS = {  # row: notebook
    "mnist": "01_mnist_resnet18",
    "emnist": "02_emnist_resnet18",
    "fashion_mnist": "03_fashion_mnist_resnet34",
    "svhn": "04_svhn_resnet34",
    "cifar10": "05_cifar10_resnet50",
}
ABLATION, ABLATION_ROW, ABLATION_SEEDS = "06_warmup_ablation", "fashion_mnist", [0, 1]
TREND = "09_depth_by_dataset"
OWN, FAMILIES, COMPRESS, REUSE = "10_your_dataset", "11_other_networks", "12_compress_further", "13_reuse_the_depth"
EXAMPLE_SETTINGS = {"architecture": "resnet18", "target_pct": 60.0}  # of 10, as it stands
COMPARISON = "07_compare_with_paper"
READ_BY_ALL = ("*/runs/*/*.[cj]s*", "*/warmup_ablation*.csv", "*/benchmark*.csv", "*/reuse.json")  # by the comparison
Later = Callable[[list[Recipe]], Iterable[Path]]  # the runs that a notebook's recipes led to when it was run before


@dataclass
class Job:
    """One notebook with its parameters, and how it went."""

    source: Path
    executed: Path
    parameters: dict
    recipes: list[Recipe]  # of the runs that it needs
    results_dir: Path
    reads_all: bool = False  # every run folder: it comes last
    known_later: dict[Path, Recipe] = field(default_factory=dict)  # runs that earlier ones led to, if it was run before
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
        for path in [self.source, *sorted((ROOT / "odnlib").rglob("*.py")), *read]:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def runs(self) -> set[str]:
        every = dict(zip(self.folders, self.recipes, strict=True)) | self.known_later
        return {results.status(recipe, folder) for folder, recipe in every.items()}

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
    """One job per row and seed, one per study (06, 09 to 13), and the comparison; `--rows` and `--only` choose some.

    Raises:
        RecipeError: every problem of every job, before anything starts.
    """
    rows, seeds, smoke = arguments.rows or list(NOTEBOOKS), arguments.seeds or [0], arguments.profile == "smoke"
    problems, jobs, overrides = [], [], dict(arguments.overrides)
    protocol = arguments.protocol or usual_protocol(arguments.profile)
    for name, listed in {"seeds": seeds, "rows": rows}.items():
        if len(set(listed)) < len(listed):
            problems.append(f"{name} {listed} name one twice")
    try:
        elsewhere = arguments.slurm or arguments.collect  # trained where the devices are
        device = "cpu" if elsewhere else choose_device(arguments.device)
        threads = overrides.get("threads", PROFILES.get(arguments.profile, {}).get("threads"))
        threads = threads if type(threads) is int and threads > 0 else None  # otherwise the recipe refuses it
        arguments.slots = slots(arguments.jobs or ("auto" if arguments.profile == "smoke" else "1"), device, threads)
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

    def chosen(name: str, unless: bool = True) -> bool:
        return name[:2] in arguments.only if arguments.only else unless

    def study(name: str, make: Callable[..., list[Recipe]], later: Later = lambda _: (), **parameters: object) -> None:
        """A notebook that takes several runs; unasked in smoke only: elsewhere these are costly."""
        if not chosen(name, smoke and not arguments.rows):
            return
        try:
            recipes = make(profile=arguments.profile, **parameters)
            add(name, suffix_of(recipes[0]) if recipes else "", recipes, **parameters, **places)
            there = [at for at in later(recipes) if (at / "recipe.json").exists()]
            jobs[-1].known_later = {at: results.read_recipe(at) for at in there}
        except RecipeError as error:
            problems.extend(line for line in str(error).splitlines() if line not in problems)

    problems += [
        f"row {row!r} does not exist: choose one of {', '.join(NOTEBOOKS)}" for row in rows if row not in NOTEBOOKS
    ]
    trained = {"protocol": protocol, "overrides": overrides, **places}
    for row in rows:
        for seed in seeds if chosen(NOTEBOOKS.get(row, "")) else []:
            recipes = needed(row, seed, [{"variant": variant} for variant in VARIANTS])
            if recipes:
                suffix = recipes[0].name.removeprefix(f"{row}-odn")
                add(NOTEBOOKS[row], suffix, recipes, row=row, seed=seed, **trained)
    if chosen(ABLATION, not arguments.rows):
        pairs = arguments.seeds or ABLATION_SEEDS
        recipes = [recipe for seed in pairs for recipe in needed(ABLATION_ROW, seed, list(ARMS.values()))]
        if recipes and recipes[0].warmup_epochs:  # `fast` has no warm-up to leave out
            add(ABLATION, suffix_of(recipes[0]), recipes, row=ABLATION_ROW, seeds=pairs, **trained)
    own = [COMMON] if smoke else ["", COMMON]
    study(TREND, trend.planned, rows=rows, architectures=own, seeds=seeds, overrides=overrides)
    all_of_them = {name: x for name, x in overrides.items() if name not in ("train_images", "validation_images")}
    runs = results_dir / arguments.profile / "runs"
    study(OWN, lambda **_: [], lambda _: own_example(runs, seeds[0], all_of_them), seed=seeds[0],
          overrides=all_of_them, **EXAMPLE_SETTINGS)  # fmt: skip
    quick = families.SMOKE if smoke else {}
    study(FAMILIES, families.planned, row=rows[0], seeds=seeds, overrides=quick | overrides)
    study(COMPRESS, compress_runs, row=rows[0], protocol=protocol, seeds=seeds, overrides=overrides)
    pairs = reuse.PAIRS if not arguments.rows else [list(pair) for pair in permutations(rows, 2)]
    plain = partial(reuse.plain_runs, runs)
    study(REUSE, reuse_runs, plain, pairs=pairs, protocol="fast", seeds=seeds, overrides=overrides)
    made = {job.source.name[:2] for job in jobs}
    for number in (x for x in arguments.only or [] if x not in made and not problems):
        problems.append(
            f"only {number!r}: no such notebook to train with these rows and this protocol (01 to 06, 09 to 13)"
        )
    add(COMPARISON, "", [], reads_all=True, results_dir=str(results_dir))
    if problems:
        raise RecipeError("\n".join(problems))
    return jobs


def own_example(runs: Path, seed: int, overrides: dict) -> list[Path]:
    """Folders of earlier searches by these settings on the images that 10 draws, named after the images' checksum."""
    found = sorted(runs.glob(f"own_{EXAMPLE}_*-seed{seed}"))
    settings = EXAMPLE_SETTINGS | {"tolerance_pct": 0.0} | overrides
    rows = {at: at.name.partition("-")[0] for at in found}
    return [at for at in found if at.name == resolve(rows[at], "odn", runs.parent.name, "fast", seed, **settings).name]


def compress_runs(profile: str, row: str, protocol: str, seeds: list[int], overrides: dict) -> list[Recipe]:
    """Search and whole network for each seed."""
    return [resolve(row, variant, profile, protocol, seed, **overrides) for seed in seeds for variant in VARIANTS]


def reuse_runs(**parameters: object) -> list[Recipe]:
    """The searches; which plain trainings follow depends on what they find."""
    return list(reuse.searches(**parameters).values())


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def slots(jobs: str, device: str, threads: int | None) -> list[dict[str, str]]:
    """What each of the notebooks side by side has to itself: environment variables that give it a GPU or some cores.

    Args:
        jobs: a number, or auto: one per GPU, or as many as there are cores for if recipes say how many `threads`.

    Raises:
        RecipeError: for another number of jobs than the device has room for.
    """
    own = gpus() if device == "cuda" else []
    most = len(own) if device == "cuda" else 1 if device.startswith(("cuda", "mps")) else cores()
    number = (len(own) or (most // threads if threads else 1) or 1) if jobs == "auto" else jobs
    if not (str(number).isdigit() and 1 <= (number := int(number)) <= most):
        raise RecipeError(f"jobs {jobs!r}: {device} has room for 1 to {most}; choose one of them, or auto")
    if own:
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in own[:number]]
    return [{"OMP_NUM_THREADS": str(most // number)} if number > 1 else {} for _ in range(number)]


def suffix_of(recipe: Recipe) -> str:
    """What tells apart the executed notebooks of one source that take several seeds."""
    return recipe.name.removeprefix(f"{recipe.row}-odn").rpartition("-")[0]


def read_notebook(path: Path) -> nbformat.NotebookNode | None:
    """A notebook, or None where there is none or only a part of one, as a killed papermill leaves it."""
    try:
        return nbformat.read(path, 4)
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return None
