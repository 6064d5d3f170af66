"""The campaign as data: which runs the results need, what each costs, and how far it is.

`python -m odnlib campaign` prints it. The state is read from the run folders, so nothing is kept twice.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from odnlib import ROOT, metrics
from odnlib.data import DATASETS
from odnlib.models import MultiExitNetwork
from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe, RecipeError, resolve
from odnlib.results import files_of_runs, read_json, run_folder, status
from odnlib.schedule import next_stage
from odnlib.studies import families
from odnlib.studies.ablation import ARMS
from odnlib.studies.trend import COMMON, EVERY_DEPTH

MACHINES = (1, 8)  # that the campaign's time is told for
ASSUMED_EPOCHS = 45  # of a stage that ends when it has converged: about what the authors' logs have per depth
TRAINING_IMAGES = {"mnist": 50_000, "emnist": 104_000, "fashion_mnist": 50_000, "svhn": 68_257, "cifar10": 45_000}


@dataclass(frozen=True)
class Part:
    """Runs that answer one question: all combinations of rows, variants and seeds."""

    question: str
    profile: str
    protocol: str
    rows: tuple[str, ...]
    variants: tuple[str, ...] = ("odn", "full")
    seeds: tuple[int, ...] = (0,)
    settings: dict = field(default_factory=dict)
    arms: tuple[dict, ...] = ({},)  # further settings, one set after the other
    only: str = ""  # number of the notebook that makes them; none: those of the rows

    def recipes(self) -> list[Recipe]:
        every = itertools.product(self.rows, self.seeds, self.variants, self.arms)
        chosen = [
            resolve(row, variant, self.profile, self.protocol, seed, **self.settings | arm)
            for row, seed, variant, arm in every
        ]
        return list(dict.fromkeys(chosen))  # arms may coincide for a row

    @property
    def command(self) -> str:
        """What makes them."""
        words = ["./run_all.sh", f"--only {self.only}"] if self.only else ["./run_all.sh"]
        words += [f"--rows {','.join(self.rows)}", f"--profile {self.profile} --protocol {self.protocol}"]
        words += [f"--seeds {','.join(map(str, self.seeds))}"]
        words += [f"--set {name}={str(value).lower()}" for name, value in self.settings.items()]
        return " ".join(words)


NOT_AT_HAND = {"svhn": "its images were not at hand where the committed results were made"}
ONE_CORE = {"bfloat16": True, "threads": 1}
FEW_FLOAT32 = {"threads": 1, "train_images": 1500, "validation_images": 1500}
FEW = FEW_FLOAT32 | {"bfloat16": True}
TREND = FEW | {"first_epochs": 12, "depth_epochs": 3}
ABLATION = {"batch_size": 32, "target_pct": 84.5, "depth_epochs": 8, "finetune_epochs": 3, "last_depth": 6}
CAMPAIGN = (
    Part("Table I at full width, cheaply", "quick", "fast", ("mnist",), seeds=(0, 1, 2), settings=ONE_CORE),
    Part(
        "Do harder datasets need deeper networks?", "reduced", "fast", ("mnist", "emnist", "fashion_mnist", "cifar10"),
        ("odn",), (0, 1, 2), TREND, (EVERY_DEPTH, EVERY_DEPTH | {"architecture": COMMON}), only="09",
    ),
    Part(
        "Does warm-up do what Figure 3 says?", "reduced", "released", ("fashion_mnist",),
        ("odn",), (0, 1, 2, 3, 4), FEW | ABLATION, tuple(ARMS.values()), only="06",
    ),
    Part(
        "Does it work with other networks?", "reduced", "fast", ("mnist",), ("odn",), (0, 1, 2),
        FEW_FLOAT32 | {"target_pct": 90.5}, tuple({"architecture": name} for name in families.NAMED), only="11",
    ),
    Part(
        "Can it be compressed further?", "reduced", "fast", ("mnist",), seeds=(0, 1, 2),
        settings={"threads": 1, "train_images": 5000, "validation_images": 5000, "target_pct": 98.0}, only="12",
    ),
    Part("Table I", "paper", "released", tuple(TABLE_1), seeds=(0, 1, 2)),
    Part("Table I by the text's numbers", "paper", "printed", tuple(TABLE_1)),
)  # fmt: skip


def planned_tmacs(recipe: Recipe) -> float:
    """Training multiply-accumulates, in 10^12, of a run that ends at the depth which the paper found."""
    dataset, images = DATASETS[recipe.row], recipe.train_images or TRAINING_IMAGES[recipe.row]
    network = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    last = min(TABLE_1[recipe.row].odn.depth if recipe.goal_pct < 100 else recipe.last_depth, recipe.last_depth)
    total, stage = 0.0, None
    while (stage := next_stage(recipe, stage, stage is not None and stage.depth >= last)) is not None:
        depth = stage.depth or network.max_depth
        epochs = ASSUMED_EPOCHS if stage.epochs is None else stage.epochs
        total += 3 * metrics.macs(network.truncate(depth), dataset.image_shape) * images * epochs / 1e12
    return total


def table(results_dir: Path, gmacs_per_second: float) -> pd.DataFrame:
    """One line per run: question, run, state, planned_tmacs, hours (at the rate given), spent_tmacs, spent_hours."""
    tmacs_per_hour = gmacs_per_second * 3.6
    lines = []
    for part in CAMPAIGN:
        for recipe in part.recipes():
            folder = run_folder(recipe, results_dir)
            planned, provenance = planned_tmacs(recipe), read_json(folder / "provenance.json") or {}
            line = {"question": part.question, "run": f"{recipe.profile}/{recipe.name}"}
            line |= {"state": status(recipe, folder), "planned_tmacs": planned, "hours": planned / tmacs_per_hour}
            spent = {"spent_tmacs": provenance.get("train_tmacs"), "spent_hours": provenance.get("seconds", 0) / 3600}
            lines.append(line | spent)
    return pd.DataFrame(lines)


def measured_rate(results_dir: Path) -> tuple[float, str] | None:
    """Training rate in 10^9 multiply-accumulates a second, and the machine it was measured on (08_benchmark)."""
    file = results_dir / "reduced" / "benchmark.csv"
    if not file.exists():
        return None
    step = pd.read_csv(file).set_index("measure").loc["step_share_of_matmul"]
    return float(step["ours"]), str(step["machine"])


def wall_hours(hours: Iterable[float], machines: int) -> float:
    """Until the last of these runs ends, each on one of so many machines, the longest handed out first."""
    busy = [0.0] * machines
    for run in sorted(hours, reverse=True):
        heapq.heapreplace(busy, busy[0] + run)
    return max(busy)


def why_not_run(row: str, variant: str) -> str:
    """In words, for a row without a run at full width on its images: what the committed runs of `quick` let expect."""
    if row in NOT_AT_HAND:
        return f"not run: {NOT_AT_HAND[row]}"
    finished = [
        read_json(file.with_name("provenance.json")) for file in files_of_runs(ROOT / "results/quick", "result.json")
    ]
    if not finished:
        return "not run"
    hours_per_tmac = sum(run["seconds"] for run in finished) / 3600 / sum(run["train_tmacs"] for run in finished)
    hours = planned_tmacs(resolve(row, variant, "quick", "fast")) * hours_per_tmac
    machine = f"{finished[0]['processor']}, {finished[0]['threads']} thread"
    return f"not run: profile quick would take about {max(hours, 1):.0f} h on {machine}"


def show(arguments: argparse.Namespace) -> int:
    """Print the campaign; 0."""
    measured = (arguments.rate, "as given") if arguments.rate else measured_rate(ROOT / "results")
    if measured is None:
        raise RecipeError("no rate has been measured here: give your machine's, e.g. --rate 50, or run 08_benchmark")
    rate, machine = measured
    runs = table(Path(arguments.results_dir), rate)
    runs["finished"] = runs["state"] == "finished"
    if arguments.runs:
        print(runs.drop(columns=["question", "finished"]).round(1).fillna("").to_string(index=False), "\n")
    summary = runs.groupby("question", sort=False).agg(runs=("run", "size"), finished=("finished", "sum"))
    left = runs[~runs["finished"]]
    for number in MACHINES:
        hours = [wall_hours(left.loc[left["question"] == question, "hours"], number) for question in summary.index]
        summary[f"hours left on {number}"] = hours
    print(f"At {rate:.0f} GMAC/s ({machine}) per machine; searches planned to the paper's depths.\n")
    print(summary.round(1).to_string())
    print("\nWhat makes them (each goes on where it was stopped; add --data-dir):\n")
    for part in CAMPAIGN:
        print(f"  # {part.question}\n  {part.command}")
    return 0
