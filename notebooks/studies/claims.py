"""Judges every claim of the paper's text: holds, does not hold, open, not comparable, or not measured.

The claims stand in claims.csv: key, section of the paper, statement, check (what is computed for it), needs_training,
holds and fails (the answer as a sentence, in either case), notebooks that make the runs, and design (its heading in
results/notes.md).
"""

from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd

from studies import ablation, common, comparison, compression, depth_or_width, families, latency, memory, reuse, trend
from studies import judgements as by_runs
from studies.judgements import VerdictAndReason

STUDY_OF_FILE_NAME = {"depth_by_dataset": trend, "families": families, "compression": compression, "reuse": reuse}
NOTEBOOK_OF_STUDY = {ablation: "06_warmup_ablation", trend: "09_depth_by_dataset", families: "11_other_networks"}
NOTEBOOK_OF_STUDY |= {compression: "12_compress_further", reuse: "13_reuse_the_depth", latency: "a row's notebook"}
NOTEBOOK_OF_STUDY |= {memory: "08_benchmark"}
NOTEBOOK_OF_STUDY |= {depth_or_width: "14_depth_or_width"}
NO_ANSWER = "These runs do not decide it."


def judge_by_study(results_dir: Path, profile: str, study: ModuleType, *question: object) -> VerdictAndReason:
    """Return what a study's `judge_claim` says about a `question`, from the runs of a profile and of those with more
    work; "not measured" where there are none, with the notebook to run.
    """
    tables = [study.read_results(results_dir, name) for name in comparison.list_profiles_from(profile)]
    tables = [table for table in tables if len(table)]
    if not tables:
        return "not measured", f"{NOTEBOOK_OF_STUDY[study]} has not been run in this profile (reduced may have it)"
    results = pd.concat(tables, ignore_index=True)
    summary = study.summarise_over_seeds(results) if hasattr(study, "summarise_over_seeds") else results
    return study.judge_claim(summary, *question)


def judge_claims(results_dir: Path, profile: str, runs: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the claims with answer, verdict and why, one row per claim, for `runs` of
    `comparison.read_runs_from_profile` (from `profile` on) and `numbers`, their `comparison.compare_with_paper`.
    """
    by_study = partial(judge_by_study, results_dir, profile)
    reused = by_study(trend, "reuse")  # or, without searches that tried every depth, notebook 13's
    further, published = by_study(compression, "further"), compression.judge_published(results_dir)
    if published[0] != "not measured":
        further = published if further[0] == "not measured" else (published[0], f"{further[1]}; {published[1]}")
    verdicts = {
        "mnist_98_64": by_runs.judge_size_reduction(numbers, "mnist"),
        "svhn_96_44": by_runs.judge_size_reduction(numbers, "svhn"),
        "reductions": by_runs.judge_size_reduction(numbers, "emnist", "fashion_mnist", "cifar10"),
        "over_95": by_runs.judge_size_reduction(numbers, "mnist", "emnist", "fashion_mnist", "svhn", over_pct=95.0),
        "within_1_75": by_runs.judge_accuracy_gap(runs),
        "accuracy_99_31": by_runs.judge_printed_accuracy(runs, {"mnist": 99.31, "svhn": 96.08}),
        "accuracy_99_39": by_runs.judge_printed_accuracy(runs, {"mnist": 99.39}),
        "blocks_suffice": by_runs.judge_printed_depths(runs),
        "only_necessary": by_runs.judge_depth_below_found(runs),
        "fine_tuning_gains": by_runs.judge_fine_tuning(runs),
        "cheaper_again": by_runs.judge_training_cost(runs, numbers),
        "warmup_jumps": by_study(ablation, ["loss_jump"]),
        "warmup_fluctuation": by_study(ablation, ablation.FLUCTUATION_STATISTICS),
        "warmup_convergence": by_study(ablation, ablation.CONVERGENCE_STATISTICS),
        "depth_follows_complexity": by_study(trend),
        "flops_mean_latency": by_study(latency),
        "memory_in_use": by_study(memory),
        "byproducts": by_runs.judge_byproducts(runs),
        "other_families": by_study(families),
        "compress_further": further,
        "compression_cannot_reach": by_study(compression, "reach"),
        "depth_is_reusable": reused if reused[0] != "not measured" else by_study(reuse, "reused"),
        "expansion_matters": by_study(reuse, "expansion"),
        "procedure_pays": by_runs.judge_gain_over_plain_training(runs),
        "depth_or_width": by_study(depth_or_width),
        "algorithm_stops": by_runs.judge_stopping(runs),
    }
    claims = pd.read_csv(Path(__file__).with_suffix(".csv"), dtype={"notebooks": str}).fillna("")
    judged = pd.DataFrame([verdicts[key] for key in claims["key"]], columns=["verdict", "why"])
    answers = [{common.CLAIM_HOLDS: x.holds, common.CLAIM_FAILS: x.fails} for x in claims.itertuples()]
    kinds = judged["verdict"].str.extract(f"^({common.CLAIM_HOLDS}|{common.CLAIM_FAILS})")[0]
    answers = [answer.get(kind, NO_ANSWER) for answer, kind in zip(answers, kinds, strict=True)]
    return claims.drop(columns=["holds", "fails"]).assign(answer=answers).join(judged)
