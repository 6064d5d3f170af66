"""Judges every claim of the paper's text: holds, does not hold, open, not comparable, or not measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd

from studies import ablation, comparison, compression, depth_or_width, families, latency, reuse, trend
from studies import judgements as by_runs
from studies.judgements import Judgement

WARMUP, COMPRESS, REUSE = "06_warmup_ablation", "12_compress_further", "13_reuse_the_depth"
NEED_NONE = ("mnist_98_64", "svhn_96_44", "reductions", "over_95", "flops_mean_latency")  # claims without training


def judged_by_study(results_dir: Path, profile: str, study: ModuleType, notebook: str, *question: object) -> Judgement:
    """Return a study's `verdict` on its claim, from the runs of the profile and of the profiles with more work."""
    tables = [study.table(results_dir, name) for name in comparison.stronger(profile)]
    tables = [table for table in tables if len(table)]
    if not tables:
        return "not measured", f"{notebook} has not been run in this profile"
    table = pd.concat(tables, ignore_index=True)
    return study.verdict(study.answers(table) if study in (compression, reuse) else table, *question)


def judge(results_dir: Path, profile: str, runs: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line per claim: key, section, statement, check (what is computed for it), verdict, why.

    Args:
        profile: the one with the least work whose runs count. runs: from `comparison.runs_from`.
        frame: `comparison.compare` of these runs.
    """
    judged_by = partial(judged_by_study, results_dir, profile)
    lines = [
        ("mnist_98_64", "Abstract", "ResNet-18 for MNIST is 98.64 % smaller", "sizes at depths 8 and 2",
         *by_runs.size_reduction(frame, "mnist")),
        ("svhn_96_44", "Abstract", "ResNet-34 for SVHN is 96.44 % smaller", "sizes at depths 16 and 5",
         *by_runs.size_reduction(frame, "svhn")),
        ("reductions", "IV", "EMNIST 96.54 %, Fashion-MNIST 95.04 %, CIFAR-10 73.06 % smaller",
         "sizes at the paper's depths", *by_runs.size_reduction(frame, "emnist", "fashion_mnist", "cifar10")),
        ("over_95", "IV", "the size reduction exceeds 95 % for MNIST, EMNIST, Fashion-MNIST and SVHN",
         "sizes of the networks at the paper's depths",
         *by_runs.size_reduction(frame, "mnist", "emnist", "fashion_mnist", "svhn", over_pct=95.0)),
        ("within_1_75", "IV", "ODNs stay within 1.75 points of the full networks' accuracy",
         "test accuracies of both, from runs at full width on real images", *by_runs.within_1_75(runs)),
        ("accuracy_99_31", "Abstract, Table I", "MNIST has 99.31 %, SVHN 96.08 %: competitive accuracy",
         "test accuracy by the paper's procedure, within the criteria",
         *by_runs.accuracy_printed(runs, {"mnist": 99.31, "svhn": 96.08})),
        ("accuracy_99_39", "I", "MNIST has 99.39 % (where the abstract has 99.31 %)",
         "test accuracy by the paper's procedure, within the criteria",
         *by_runs.accuracy_printed(runs, {"mnist": 99.39})),
        ("blocks_suffice", "IV",
         "2 of 8 blocks are enough for MNIST, 3 for EMNIST, 6 of 16 for Fashion-MNIST, 5 for SVHN",
         "depth of the searches that met their goal at full width", *by_runs.blocks_suffice(runs)),
        ("only_necessary", "I, III", "only the depth that is needed is allocated",
         "the depth below the one found, trained for twice as long", *by_runs.only_necessary(runs)),
        ("fine_tuning_gains", "III-D", "fine-tuning further improves accuracy",
         "validation accuracy before and after it, at full width", *by_runs.fine_tuning_gains(runs)),
        ("cheaper_again", "I", "the depth found cuts future training costs",
         "multiply-accumulates of a training step, beside what the search costs", *by_runs.cheaper_again(runs, frame)),
        ("warmup_jumps", "III-B", "warm-up prevents sudden jumps in the loss curve when blocks are added",
         "rise of validation loss at a new depth, paired over seeds", *judged_by(ablation, WARMUP, ["loss_jump"])),
        ("warmup_fluctuation", "III-B, Figure 3", "warm-up mitigates large fluctuations",
         "epoch-to-epoch change of validation accuracy and loss, and their jump at a new depth, paired over seeds",
         *judged_by(ablation, WARMUP, ablation.FLUCTUATION)),
        ("warmup_convergence", "III-B, Figure 3", "warm-up speeds up convergence",
         "epochs until a validation accuracy is reached, paired over seeds",
         *judged_by(ablation, WARMUP, ablation.CONVERGENCE)),
        ("depth_follows_complexity", "IV", "harder datasets get deeper networks",
         "depth found per dataset with one architecture and one rule", *judged_by(trend, "09_depth_by_dataset")),
        ("flops_mean_latency", "IV", "lower FLOPs result in faster inference on edge devices",
         "latency of full and optimally deep network, on a CPU, beside the ratio of their MACs",
         *judged_by(latency, "a row's notebook")),
        ("byproducts", "IV", "the networks of all depths tried serve stricter budgets",
         "validation accuracy of every depth tried against its size", *by_runs.byproducts(runs)),
        ("other_families", "I", "the method applies to Wide ResNets and MobileNets", "a search with each family",
         *judged_by(families, "11_other_networks")),
        ("compress_further", "I", "ODNs can be compressed further", "quantisation and pruning of an ODN",
         *judged_by(compression, COMPRESS, "further")),
        ("compression_cannot_reach", "II-B",
         "pruning and quantisation of the full network do not reach such a reduction",
         "quantisation and pruning of a full network beside the ODN", *judged_by(compression, COMPRESS, "reach")),
        ("depth_is_reusable", "I", "the depth found can be reused for datasets of similar complexity",
         "training at a depth found elsewhere beside a search", *judged_by(reuse, REUSE, "reused")),
        ("expansion_matters", "III-C",
         "progressive depth expansion trains the network deployed (the paper shows no plain training of it)",
         "the same network trained plainly, for as many multiply-accumulates as the search took",
         *judged_by(reuse, REUSE, "expansion")),
        ("procedure_pays", "III", "warm-up, expansion and fine-tuning give a better network than plain training",
         "the same depth trained from the initial weights by `equal`, at full width", *by_runs.procedure_pays(runs)),
        ("depth_or_width", "ours", "depth is the right thing to adapt",
         "networks of full width cut at a depth, beside a chain of as many bytes that halves the image at every block",
         *judged_by(depth_or_width, "14_depth_or_width")),
        ("algorithm_stops", "Algorithm 1",
         "the search stops as soon as the target is met or the last depth is passed",
         "the stages that a run goes through, from its records", *by_runs.algorithm_stops(runs)),
    ]  # fmt: skip
    judged = pd.DataFrame(lines, columns=["key", "section", "statement", "check", "verdict", "why"])
    return judged.assign(needs_training=~judged["key"].isin(NEED_NONE))
