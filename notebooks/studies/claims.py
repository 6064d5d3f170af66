"""Judges every claim of the paper's text: holds, does not hold, open, not comparable, or not measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd

from studies import ablation, comparison, compression, depth_or_width, families, latency, reuse, trend
from studies import judgements as by_runs
from studies.judgements import VerdictAndReason

WARMUP_NOTEBOOK, REUSE_NOTEBOOK, COMPRESSION_NOTEBOOK = (
    "06_warmup_ablation",
    "13_reuse_the_depth",
    "12_compress_further",
)
CLAIMS_WITHOUT_TRAINING = ("mnist_98_64", "svhn_96_44", "reductions", "over_95", "flops_mean_latency")


def judge_by_study(
    results_dir: Path, profile: str, study: ModuleType, notebook: str, *question: object
) -> VerdictAndReason:
    """Return what a study's `judge_claim` says about a `question`, from the runs of a profile and of those with more
    work; "not measured" where there are none, with the `notebook` to run.
    """
    tables = [study.read_results(results_dir, name) for name in comparison.list_profiles_from(profile)]
    tables = [table for table in tables if len(table)]
    if not tables:
        return "not measured", f"{notebook} has not been run in this profile"
    results = pd.concat(tables, ignore_index=True)
    summary = study.summarise_over_seeds(results) if hasattr(study, "summarise_over_seeds") else results
    return study.judge_claim(summary, *question)


def judge_claims(results_dir: Path, profile: str, runs: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Return a table, one row per claim: key, section, statement, check (what is computed for it), verdict, why,
    needs_training.

    Args:
        profile: the one with the least work whose runs count. runs: from `comparison.read_runs_from_profile`.
        numbers: `comparison.compare_with_paper` of these runs.
    """
    by_study = partial(judge_by_study, results_dir, profile)
    claims = [
        ("mnist_98_64", "Abstract", "ResNet-18 for MNIST is 98.64 % smaller", "sizes at depths 8 and 2",
         *by_runs.judge_size_reduction(numbers, "mnist")),
        ("svhn_96_44", "Abstract", "ResNet-34 for SVHN is 96.44 % smaller", "sizes at depths 16 and 5",
         *by_runs.judge_size_reduction(numbers, "svhn")),
        ("reductions", "IV", "EMNIST 96.54 %, Fashion-MNIST 95.04 %, CIFAR-10 73.06 % smaller",
         "sizes at the paper's depths", *by_runs.judge_size_reduction(numbers, "emnist", "fashion_mnist", "cifar10")),
        ("over_95", "IV", "the size reduction exceeds 95 % for MNIST, EMNIST, Fashion-MNIST and SVHN",
         "sizes of the networks at the paper's depths",
         *by_runs.judge_size_reduction(numbers, "mnist", "emnist", "fashion_mnist", "svhn", over_pct=95.0)),
        ("within_1_75", "IV", "ODNs stay within 1.75 points of the full networks' accuracy",
         "test accuracies of both, from runs at full width on real images", *by_runs.judge_accuracy_gap(runs)),
        ("accuracy_99_31", "Abstract, Table I", "MNIST has 99.31 %, SVHN 96.08 %: competitive accuracy",
         "test accuracy by the paper's procedure, within the criteria",
         *by_runs.judge_printed_accuracy(runs, {"mnist": 99.31, "svhn": 96.08})),
        ("accuracy_99_39", "I", "MNIST has 99.39 % (where the abstract has 99.31 %)",
         "test accuracy by the paper's procedure, within the criteria",
         *by_runs.judge_printed_accuracy(runs, {"mnist": 99.39})),
        ("blocks_suffice", "IV",
         "2 of 8 blocks are enough for MNIST, 3 for EMNIST, 6 of 16 for Fashion-MNIST, 5 for SVHN",
         "depth of the searches that met their goal at full width", *by_runs.judge_printed_depths(runs)),
        ("only_necessary", "I, III", "only the depth that is needed is allocated",
         "the depth below the one found, trained for twice as long", *by_runs.judge_depth_below_found(runs)),
        ("fine_tuning_gains", "III-D", "fine-tuning further improves accuracy",
         "validation accuracy before and after it, at full width", *by_runs.judge_fine_tuning(runs)),
        ("cheaper_again", "I", "the depth found cuts future training costs",
         "multiply-accumulates of a training step, beside what the search costs",
         *by_runs.judge_training_cost(runs, numbers)),
        ("warmup_jumps", "III-B", "warm-up prevents sudden jumps in the loss curve when blocks are added",
         "rise of validation loss at a new depth, paired over seeds",
         *by_study(ablation, WARMUP_NOTEBOOK, ["loss_jump"])),
        ("warmup_fluctuation", "III-B, Figure 3", "warm-up mitigates large fluctuations",
         "epoch-to-epoch change of validation accuracy and loss, and their jump at a new depth, paired over seeds",
         *by_study(ablation, WARMUP_NOTEBOOK, ablation.FLUCTUATION_STATISTICS)),
        ("warmup_convergence", "III-B, Figure 3", "warm-up speeds up convergence",
         "epochs until a validation accuracy is reached, paired over seeds",
         *by_study(ablation, WARMUP_NOTEBOOK, ablation.CONVERGENCE_STATISTICS)),
        ("depth_follows_complexity", "IV", "harder datasets get deeper networks",
         "depth found per dataset with one architecture and one rule", *by_study(trend, "09_depth_by_dataset")),
        ("flops_mean_latency", "IV", "lower FLOPs result in faster inference on edge devices",
         "latency of full and optimally deep network, on a CPU, beside the ratio of their MACs",
         *by_study(latency, "a row's notebook")),
        ("byproducts", "IV", "the networks of all depths tried serve stricter budgets",
         "validation accuracy of every depth tried against its size", *by_runs.judge_byproducts(runs)),
        ("other_families", "I", "the method applies to Wide ResNets and MobileNets", "a search with each family",
         *by_study(families, "11_other_networks")),
        ("compress_further", "I", "ODNs can be compressed further", "quantisation and pruning of an ODN",
         *by_study(compression, COMPRESSION_NOTEBOOK, "further")),
        ("compression_cannot_reach", "II-B",
         "pruning and quantisation of the full network do not reach such a reduction",
         "quantisation and pruning of a full network beside the ODN",
         *by_study(compression, COMPRESSION_NOTEBOOK, "reach")),
        ("depth_is_reusable", "I", "the depth found can be reused for datasets of similar complexity",
         "training at a depth found elsewhere beside a search", *by_study(reuse, REUSE_NOTEBOOK, "reused")),
        ("expansion_matters", "III-C",
         "progressive depth expansion trains the network deployed (the paper shows no plain training of it)",
         "the same network trained plainly, for as many multiply-accumulates as the search took",
         *by_study(reuse, REUSE_NOTEBOOK, "expansion")),
        ("procedure_pays", "III", "warm-up, expansion and fine-tuning give a better network than plain training",
         "the same depth trained from the initial weights by `equal`, at full width",
         *by_runs.judge_gain_over_plain_training(runs)),
        ("depth_or_width", "ours", "depth is the right thing to adapt",
         "networks of full width cut at a depth, beside a chain of as many bytes that halves the image at every block",
         *by_study(depth_or_width, "14_depth_or_width")),
        ("algorithm_stops", "Algorithm 1",
         "the search stops as soon as the target is met or the last depth is passed",
         "the stages that a run goes through, from its records", *by_runs.judge_stopping(runs)),
    ]  # fmt: skip
    judged = pd.DataFrame(claims, columns=["key", "section", "statement", "check", "verdict", "why"])
    return judged.assign(needs_training=~judged["key"].isin(CLAIMS_WITHOUT_TRAINING))
