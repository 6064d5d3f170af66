"""Every claim of the paper's text with its verdict: holds, does not hold, open, not comparable, or not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd

from odnlib.paper import TABLE_1
from studies import ablation, comparison, compression, families, latency, reuse, trend
from studies.common import FAILS, HOLDS, OPEN

Judgement = tuple[str, str]  # verdict, reason with the figures


@dataclass(frozen=True)
class Evidence:
    """What there is to judge by."""

    results_dir: Path
    profile: str  # and stronger ones
    runs: pd.DataFrame  # `comparison.runs_from`
    frame: pd.DataFrame  # `comparison.compare`

    def of(self, study: ModuleType) -> pd.DataFrame:
        """The table of a study over all these profiles."""
        tables = [study.table(self.results_dir, profile) for profile in comparison.stronger(self.profile)]
        tables = [table for table in tables if len(table)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def searches(self) -> tuple[pd.DataFrame, bool]:
        """The searches whose numbers may be held against the paper's, or if there are none all, and which."""
        searches = self.runs[self.runs["variant"] == "odn"] if len(self.runs) else pd.DataFrame(columns=["row"])
        comparable = searches[searches["not_comparable"] == ""] if len(searches) else searches
        return (comparable, True) if len(comparable) else (searches, False)


def holds_for_all(condition: bool, rows: set[str]) -> str:
    """A statement about the method is borne out by all of Table I's rows, and refuted by one."""
    return (HOLDS if rows >= set(TABLE_1) else OPEN) if condition else FAILS


def rows_measured(rows: set[str]) -> str:
    return f"{len(rows)} of {len(TABLE_1)} rows"


def size_reduction(evidence: Evidence, rows: tuple[str, ...], over_pct: float | None = None) -> Judgement:
    """Whether what is saved at the paper's depths is as printed, or is over a limit."""
    frame = evidence.frame[evidence.frame["cell"] == "size_reduction_pct"].set_index("row")
    saved = {row: float(frame.loc[row, "measured"]) for row in rows}
    right = [
        abs(x - TABLE_1[row].size_reduction_pct) < 0.05 if over_pct is None else x > over_pct
        for row, x in saved.items()
    ]
    said = ", ".join(f"{row} {value:.2f} % ({TABLE_1[row].size_reduction_pct} printed)" for row, value in saved.items())
    return (HOLDS if all(right) else FAILS), said


def within_1_75(evidence: Evidence) -> Judgement:
    printed = {row: table.full.test_acc_pct - table.odn.test_acc_pct for row, table in TABLE_1.items()}
    said = f"largest gap printed {max(printed.values()):.2f} points"
    accuracies = evidence.frame[(evidence.frame["cell"] == "test_acc_pct") & (evidence.frame["n"] > 0)]
    comparable = accuracies[accuracies["verdict"] != "not comparable"]
    if len(accuracies) and not len(comparable):
        return "not comparable", f"{said}; measured only on stand-ins, narrow networks or subsets"
    pairs = comparable.pivot_table(index=["row", "profile", "rule", "label"], columns="variant", values="measured")
    if not {"full", "odn"} <= set(pairs.columns) or (gaps := (pairs["full"] - pairs["odn"]).dropna()).empty:
        return "not measured", f"{said}; no row has both networks at full width yet"
    rows = set(gaps.index.get_level_values("row"))
    measured = ", ".join(f"{keys[0]} {gap:.2f}" for keys, gap in gaps.items())
    return holds_for_all(gaps.max() <= 1.75, rows), f"{said}; measured {measured} points ({rows_measured(rows)})"


def by_study(evidence: Evidence, study: ModuleType, notebook: str, *which: object) -> Judgement:
    """What a study says of it."""
    table = evidence.of(study)
    if table.empty:
        return "not measured", f"{notebook} has not been run in this profile"
    return study.verdict(table, *which)


def by_answers(evidence: Evidence, study: ModuleType, notebook: str, question: str) -> Judgement:
    """What a study of several questions says of one."""
    table = evidence.of(study)
    if table.empty:
        return "not measured", f"{notebook} has not been run in this profile"
    return study.verdict(study.answers(table), question)


def byproducts(evidence: Evidence) -> Judgement:
    searches, comparable = evidence.searches()
    choices = []
    for folder in searches.get("folder", []):
        tried = pd.read_csv(folder / "depths.csv").dropna(subset="val_acc_pct")
        if len(tried) > 1:  # on the front: more accurate than every smaller network
            choices.append((tried["val_acc_pct"].cummax().diff().fillna(1) > 0).sum())
    if not choices:
        return "not measured", "no search has tried more than one depth"
    rows = set(searches["row"])
    said = (
        f"{len(choices)} searches ({rows_measured(rows)}) leave {min(choices)} to {max(choices)} networks, each better "
    )
    said += "than all smaller ones"
    if not comparable:
        return "not comparable", f"stand-ins, narrow networks or shortened rules: {said}"
    return holds_for_all(min(choices) > 1, rows), said


def algorithm_stops(evidence: Evidence) -> Judgement:
    searches = evidence.runs[evidence.runs["variant"] == "odn"] if len(evidence.runs) else evidence.runs
    if not len(searches):
        return "not measured", "no search has been run"
    right = 0
    for run in searches.itertuples():
        epochs = pd.read_csv(run.folder / "epochs.csv")
        best = epochs[epochs["stage"] == "depth"].groupby("depth")["best_val_acc_pct"].max()
        left, stopped = best[best.index < run.depth], best[best.index == run.depth]
        met = run.depth == run.last_depth or (len(stopped) and stopped.iloc[0] >= run.goal_pct)
        right += bool((left < run.goal_pct).all() and met)
    return (HOLDS if right == len(searches) else FAILS), (
        f"our implementation: {right} of {len(searches)} searches left every depth below its goal and stopped at the "
        "first that met it, or at the last. What Algorithm 1 leaves open is settled as in the released code; taken "
        "literally it would return a depth too many where the target is never met"
    )


@dataclass(frozen=True)
class Claim:
    """A statement of the text, and how it can be checked here."""

    key: str
    section: str
    statement: str
    check: str  # what is computed or measured for it
    judge: Callable[[Evidence], Judgement]


FOUR = ("mnist", "emnist", "fashion_mnist", "svhn")
WARMUP, COMPRESS, REUSE = "06_warmup_ablation", "12_compress_further", "13_reuse_the_depth"
CLAIMS = (
    Claim("mnist_98_64", "Abstract", "ResNet-18 for MNIST is 98.64 % smaller", "sizes at depths 8 and 2",
          partial(size_reduction, rows=("mnist",))),
    Claim("svhn_96_44", "Abstract", "ResNet-34 for SVHN is 96.44 % smaller", "sizes at depths 16 and 5",
          partial(size_reduction, rows=("svhn",))),
    Claim("over_95", "IV", "the size reduction exceeds 95 % for MNIST, EMNIST, Fashion-MNIST and SVHN",
          "sizes of the networks at the paper's depths", partial(size_reduction, rows=FOUR, over_pct=95.0)),
    Claim("within_1_75", "IV", "ODNs stay within 1.75 points of the full networks' accuracy",
          "test accuracies of both, from runs at full width on real images", within_1_75),
    Claim("warmup_fluctuation", "III-B, Figure 3", "warm-up mitigates large fluctuations",
          "epoch-to-epoch change of validation accuracy and loss, and their jump at a new depth, paired over seeds",
          lambda evidence: by_study(evidence, ablation, WARMUP, ablation.FLUCTUATION)),
    Claim("warmup_convergence", "III-B, Figure 3", "warm-up speeds up convergence",
          "epochs until a validation accuracy is reached, paired over seeds",
          lambda evidence: by_study(evidence, ablation, WARMUP, ablation.CONVERGENCE)),
    Claim("depth_follows_complexity", "IV", "harder datasets get deeper networks",
          "depth found per dataset with one architecture and one rule",
          lambda evidence: by_study(evidence, trend, "09_depth_by_dataset")),
    Claim("flops_mean_latency", "IV", "lower FLOPs result in faster inference on edge devices",
          "latency of full and optimally deep network, on a CPU, beside the ratio of their MACs",
          lambda evidence: by_study(evidence, latency, "a row's notebook")),
    Claim("byproducts", "IV", "the networks of all depths tried serve stricter budgets",
          "validation accuracy of every depth tried against its size", byproducts),
    Claim("other_families", "I", "the method applies to Wide ResNets and MobileNets", "a search with each family",
          lambda evidence: by_study(evidence, families, "11_other_networks")),
    Claim("compress_further", "I", "ODNs can be compressed further", "quantisation and pruning of an ODN",
          lambda evidence: by_answers(evidence, compression, COMPRESS, "further")),
    Claim("compression_cannot_reach", "II-B",
          "pruning and quantisation of the full network do not reach such a reduction",
          "quantisation and pruning of a full network beside the ODN",
          lambda evidence: by_answers(evidence, compression, COMPRESS, "reach")),
    Claim("depth_is_reusable", "I", "the depth found can be reused for datasets of similar complexity",
          "training at a depth found elsewhere beside a search",
          lambda evidence: by_answers(evidence, reuse, REUSE, "reused")),
    Claim("expansion_matters", "III-C",
          "progressive depth expansion trains the network deployed (the paper shows no plain training of it)",
          "the same network trained plainly, for as many multiply-accumulates as the search took",
          lambda evidence: by_answers(evidence, reuse, REUSE, "expansion")),
    Claim("algorithm_stops", "Algorithm 1",
          "the search stops as soon as the target is met or the last depth is passed",
          "the stages that a run goes through, from its records", algorithm_stops),
)  # fmt: skip

# Where the paper contradicts itself or its released code: subject, one place, another.
CONTRADICTIONS = (
    ("Initial learning rate", "Section IV: 0.1", "released code: 0.01 (SVHN: 0.1)"),
    ("Learning-rate decay", "Section III-C: reduced by 60 % (x 0.4)", "Algorithm 1 line 28 and released code: x 0.6"),
    ("Warm-up", "Algorithm 1 lines 1-9: the full depth only", "Sections III and III-B: all depth levels"),
    ("When the rate decays", "Algorithm 1 line 27: at each improvement too", "Section III-C: 5 epochs without one"),
    ("Restart of a depth", "Algorithm 1: best accuracy, counter, rate are kept", "Section III: training is restarted"),
    ("Fine-tuning", "absent from Algorithm 1", "Section III-D: the final step"),
    ("Target never met", "Algorithm 1 returns D_f + 1", "Eq. 1: no such depth"),
    ("ODN accuracy on MNIST", "abstract and Table I: 99.31 %", "contributions: 99.39 %"),
    ("Best accuracy at a new depth", "released code: reset", "its stored logs: carried over (our `carry_best`)"),
    ("Full-depth baselines", "Table I lists them", "neither text nor released code says how they were trained"),
    ("Architectures", "Section I: ResNet-24", "Section IV: ResNet-18, -34, -50"),
)


def judge(evidence: Evidence) -> pd.DataFrame:
    """One line per claim: key, section, statement, check, verdict, why."""
    lines = []
    for claim in CLAIMS:
        verdict, why = claim.judge(evidence)
        told = {name: getattr(claim, name) for name in ("key", "section", "statement", "check")}
        lines.append(told | {"verdict": verdict, "why": why})
    return pd.DataFrame(lines)
