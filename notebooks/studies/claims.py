"""Judges every claim of the paper's text: holds, does not hold, open, not comparable, or not measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd

from odnlib.paper import TABLE_1
from studies import ablation, common, comparison, compression, families, latency, reuse, trend
from studies.common import FAILS, HOLDS

Judgement = tuple[str, str]  # verdict, reason with the figures
WARMUP, COMPRESS, REUSE = "06_warmup_ablation", "12_compress_further", "13_reuse_the_depth"


def size_reduction(frame: pd.DataFrame, *rows: str, over_pct: float | None = None) -> Judgement:
    """Return (verdict, reason): does the size reduction at the paper's depths equal Table I's, or exceed `over_pct`?"""
    lines = frame[frame["cell"] == "size_reduction_pct"].set_index("row").loc[list(rows)]
    off = (lines["measured"] - lines["paper"]).abs()
    right = off < 0.05 if over_pct is None else lines["measured"] > over_pct
    why = ", ".join(f"{line.Index} {line.measured:.2f} % ({line.paper} printed)" for line in lines.itertuples())
    return (HOLDS if right.all() else FAILS), why


def within_1_75(runs: pd.DataFrame) -> Judgement:
    """Return (verdict, reason): are optimally deep networks at most 1.75 points less accurate than full ones?"""
    largest = max(printed.full.test_acc_pct - printed.odn.test_acc_pct for printed in TABLE_1.values())
    why, gaps = f"largest gap printed {largest:.2f} points", {}
    for row, seeds, whole in comparison.searches_with_whole_network(runs[runs["not_comparable"] == ""]):
        if len(whole):
            gap = whole["test_acc_pct"].mean() - seeds["test_acc_pct"].mean()
            gaps[f"{row} {gap:.2f} ({seeds['rule'].iloc[0]}, n = {len(seeds)} and {len(whole)})"] = row, gap
    if not gaps:
        trained = comparison.of_table_1(runs)["not_comparable"].ne("").any()
        return "not comparable" if trained else "not measured", f"{why}; no row has both networks at full width"
    rows, measured = zip(*gaps.values(), strict=True)
    return common.for_all(max(measured) <= 1.75, set(rows)), f"{why}; measured {', '.join(gaps)}"


def procedure_pays(runs: pd.DataFrame) -> Judgement:
    """Return (verdict, reason): do `released` searches with carry_best gain over 0.20 points on `equal`?"""
    at_full_width, rows, why = runs[(runs["not_comparable"] == "") & (runs["variant"] == "odn")], {}, []
    for row, searches in at_full_width.groupby("row"):
        scratch, by_paper = (searches[searches["rule"] == rule] for rule in ("equal", "released"))
        by_paper = by_paper[by_paper["carry_best"].astype(bool) & by_paper["depth"].isin(scratch["depth"])]
        if len(scratch) and len(by_paper):
            names = ["val_acc_pct", "test_acc_pct", "train_tmacs"]
            gain, cost = (x[names].mean() for x in (by_paper, scratch))
            rows[row] = (gain - cost)["test_acc_pct"] > 0.20
            why.append(
                f"{row}, depth {by_paper['depth'].iloc[0]}: {(gain - cost)['val_acc_pct']:+.2f} points on validation, "
                f"{(gain - cost)['test_acc_pct']:+.2f} on test (n = {len(by_paper)} and {len(scratch)}), for "
                f"{gain['train_tmacs']:.0f} instead of {cost['train_tmacs']:.0f} TMAC"
            )
    if not rows:
        return "not measured", "no row has both at full width"
    return common.for_all(all(rows.values()), set(rows)), "; ".join(why)


def byproducts(runs: pd.DataFrame) -> Judgement:
    """Return (verdict, reason): does a search leave several networks, each more accurate than all smaller ones?"""
    searches = runs[runs["variant"] == "odn"]
    comparable = searches[searches["not_comparable"] == ""]
    searches, choices = comparable if len(comparable) else searches, []
    for folder in searches["folder"]:
        tried = pd.read_csv(folder / "depths.csv").dropna(subset="val_acc_pct")
        if len(tried) > 1:  # on the front: more accurate than every smaller network
            choices.append((tried["val_acc_pct"].cummax().diff().fillna(1) > 0).sum())
    if not choices:
        return "not measured", "no search has tried more than one depth"
    rows = set(searches["row"])
    why = f"{len(choices)} searches ({len(rows)} of {len(TABLE_1)} rows) leave {min(choices)} to {max(choices)} "
    why += "networks, each better than all smaller ones"
    if comparable.empty:
        return "not comparable", f"stand-ins, narrow networks or shortened rules: {why}"
    return common.for_all(min(choices) > 1, rows), why


def algorithm_stops(runs: pd.DataFrame) -> Judgement:
    """Return (verdict, reason): did every search stop at the first depth that met its goal, or at the last?"""
    searches, right = runs[runs["variant"] == "odn"], 0
    if searches.empty:
        return "not measured", "no search has been run"
    for run in searches.itertuples():
        epochs = pd.read_csv(run.folder / "epochs.csv")
        best = epochs[epochs["stage"] == "depth"].groupby("depth")["best_val_acc_pct"].max()
        met = run.depth == run.last_depth or best.get(run.depth, -1) >= run.goal_pct
        right += met and (best[best.index < run.depth] < run.goal_pct).all()
    return (HOLDS if right == len(searches) else FAILS), (
        f"our implementation: {right} of {len(searches)} searches left every depth below its goal and stopped at the "
        "first that met it, or at the last. What Algorithm 1 leaves open is settled as in the released code; taken "
        "literally it would return a depth too many where the target is never met"
    )


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
         *size_reduction(frame, "mnist")),
        ("svhn_96_44", "Abstract", "ResNet-34 for SVHN is 96.44 % smaller", "sizes at depths 16 and 5",
         *size_reduction(frame, "svhn")),
        ("over_95", "IV", "the size reduction exceeds 95 % for MNIST, EMNIST, Fashion-MNIST and SVHN",
         "sizes of the networks at the paper's depths",
         *size_reduction(frame, "mnist", "emnist", "fashion_mnist", "svhn", over_pct=95.0)),
        ("within_1_75", "IV", "ODNs stay within 1.75 points of the full networks' accuracy",
         "test accuracies of both, from runs at full width on real images", *within_1_75(runs)),
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
         "validation accuracy of every depth tried against its size", *byproducts(runs)),
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
         "the same depth trained from the initial weights by `equal`, at full width", *procedure_pays(runs)),
        ("algorithm_stops", "Algorithm 1",
         "the search stops as soon as the target is met or the last depth is passed",
         "the stages that a run goes through, from its records", *algorithm_stops(runs)),
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=["key", "section", "statement", "check", "verdict", "why"])
