"""Every claim of the paper's text with its verdict: holds, does not hold, open, not comparable, or not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from odnlib.paper import CLAIMS, TABLE_1
from odnlib.recipes import PROFILES
from odnlib.studies import ablation, compress, families, reuse, trend
from odnlib.verdict import comparison

Judgement = tuple[str, str]  # verdict, reason with the figures


def holds(condition: bool) -> str:
    return "holds" if condition else "does not hold"


def holds_for_all(condition: bool, rows: set[str]) -> str:
    """A statement about the method is borne out by all of Table I's rows, and refuted by one."""
    return ("holds" if rows >= set(TABLE_1) else "open") if condition else "does not hold"


def scaled(verdict: str, said: str, not_comparable: str) -> Judgement:
    """A verdict on a general statement: stand-ins bear none out, narrow networks or few images do at their scale."""
    if "stand-in" in not_comparable:
        return "not comparable", f"{not_comparable} - {said}"
    return (f"{verdict} at reduced scale", f"{not_comparable} - {said}") if not_comparable else (verdict, said)


def tables_of(folder: Path, pattern: str) -> list[Path]:
    """Tables of the strongest profile that has them, from results/<profile> on."""
    profiles = list(PROFILES)
    for profile in reversed(profiles[profiles.index(folder.name) :]):
        if found := sorted(folder.with_name(profile).glob(f"{pattern}.csv")):
            return found
    return []


def saved_pct(frame: pd.DataFrame, row: str) -> float:
    at = frame[(frame["row"] == row) & (frame["cell"] == "size_reduction_pct")]
    return float(at["measured"].iloc[0])


def size_reduction(row: str) -> Callable[[pd.DataFrame, pd.DataFrame, Path], Judgement]:
    def judge(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
        measured, printed = saved_pct(frame, row), TABLE_1[row].size_reduction_pct
        return holds(
            abs(measured - printed) < 0.05
        ), f"measured {measured:.2f} % at the paper's depth ({printed} printed)"

    return judge


def over_95(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    saved = {row: saved_pct(frame, row) for row in ("mnist", "emnist", "fashion_mnist", "svhn")}
    return holds(min(saved.values()) > 95), ", ".join(f"{row} {value:.2f} %" for row, value in saved.items())


def within_1_75(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    printed = {row: table.full.test_acc_pct - table.odn.test_acc_pct for row, table in TABLE_1.items()}
    said = f"largest gap printed {max(printed.values()):.2f} points"
    accuracies = frame[(frame["cell"] == "test_acc_pct") & (frame["n"] > 0)]
    comparable = accuracies[accuracies["verdict"] != "not comparable"]
    if len(accuracies) == 0:
        return "not measured", said
    if len(comparable) == 0:
        return "not comparable", f"{said}; measured only on stand-ins, narrow networks or subsets"
    pairs = comparable.pivot_table(index=["row", "profile", "protocol", "tag"], columns="variant", values="measured")
    if not {"full", "odn"} <= set(pairs.columns) or (gaps := (pairs["full"] - pairs["odn"]).dropna()).empty:
        return "not measured", f"{said}; no row has both networks at full width yet"
    measured = ", ".join(f"{keys[0]} {gap:.2f}" for keys, gap in gaps.items())
    rows = set(gaps.index.get_level_values("row"))
    said = f"{said}; measured {measured} points ({len(rows)} of {len(TABLE_1)} rows)"
    return holds_for_all(gaps.max() <= 1.75, rows), said


def warmup(names: tuple[str, ...]) -> Callable[[pd.DataFrame, pd.DataFrame, Path], Judgement]:
    def judge(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
        tables = [pd.read_csv(file) for file in tables_of(folder, "warmup_ablation-*")]
        if not tables:
            return "not measured", "06_warmup_ablation has not been run in this profile"
        # The most telling one: comparable if possible, then the one with the most seeds.
        paired = max(tables, key=lambda table: (table["not_comparable"].isna().all(), table["n"].max()))
        said = "; ".join(ablation.sentence(paired, name) for name in names)
        verdicts = paired[paired["statistic"].isin(names)]["verdict"].unique()
        reason = "" if paired["not_comparable"].isna().all() else paired["not_comparable"].iloc[0]
        return scaled(verdicts[0] if len(verdicts) == 1 else "open", said, reason)

    return judge


def depth_follows_complexity(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    needed = trend.table(trend.searches(runs))
    if needed.empty:
        return "not measured", f"fewer than {trend.FEWEST_ROWS} datasets were searched through every depth"
    strictest = needed[needed["tolerance_pct"] == trend.TOLERANCES_PCT[0]]
    # The most telling study: the one of the strongest profile with the most searches.
    studies = [lines for _, lines in strictest.groupby(["profile", "protocol", "settings"])]
    at = max(studies, key=lambda lines: (list(PROFILES).index(lines["profile"].iloc[0]), len(lines)))
    alike = at[at["architectures"] != trend.PAPERS]
    judged = {name: trend.verdict(lines) for name, lines in at.groupby("architectures", sort=False)}
    said = "; ".join(f"{name}: {why}" for name, (_, why) in judged.items())
    # One architecture for all: depths of different ones are not counted in the same blocks.
    verdict = judged[(at if alike.empty else alike)["architectures"].iloc[0]][0]
    return scaled(verdict, said, at["not_comparable"].iloc[0])


def of_full_width(runs: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The searches whose numbers may be held against the paper's, or if there are none, all searches; and which."""
    searches = runs[runs["variant"] == "odn"] if len(runs) else pd.DataFrame(columns=["folder", "not_comparable"])
    comparable = searches[searches["not_comparable"] == ""]
    return (comparable, True) if len(comparable) else (searches, False)


def flops_mean_latency(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    searches, comparable = of_full_width(runs)
    files = [file for name in searches["folder"] if (file := Path(name) / "latency.csv").exists()]
    measured = pd.concat([pd.read_csv(file) for file in files]) if files else pd.DataFrame({"macs_ratio": []})
    measured = measured[measured["macs_ratio"] > 1]  # a search that ends at the last depth has nothing to compare
    if not len(measured):
        return "not measured", "no search that ends before the last depth has measured latency"
    faster = (measured["latency_ratio"] > 1).mean()
    said = (
        f"{len(measured)} measurements on a CPU ({measured['row'].nunique()} rows, batch 1 and 128, width "
        f"{', '.join(map(str, sorted(measured['width'].unique())))}): the ODN is faster in {faster:.0%}, median "
        f"{measured['latency_ratio'].median():.1f} x for {measured['macs_ratio'].median():.1f} x fewer MACs"
    )
    if not comparable:
        return "not comparable", f"narrow networks: {said}"
    return ("open" if 0.5 < faster < 1 else holds_for_all(faster == 1, set(measured["row"]))), said


def byproducts(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    searches, comparable = of_full_width(runs)
    choices = []
    for name in searches["folder"]:
        tried = pd.read_csv(Path(name) / "depths.csv").dropna(subset="val_acc_pct")
        if len(tried) > 1:  # on the front: more accurate than every smaller network
            choices.append((tried["val_acc_pct"].cummax().diff().fillna(1) > 0).sum())
    if not choices:
        return "not measured", "no search has tried more than one depth"
    rows = set(searches["row"])
    said = f"{len(choices)} searches ({len(rows)} of {len(TABLE_1)} rows) leave {min(choices)} to {max(choices)} "
    said += "networks, each better than all smaller ones"
    if not comparable:
        return "not comparable", f"stand-ins, narrow networks or shortened rules: {said}"
    return holds_for_all(min(choices) > 1, rows), said


def algorithm_stops(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    searches = runs[runs["variant"] == "odn"] if len(runs) else runs
    if not len(searches):
        return "not measured", "no search has been run"
    right = 0
    for run in searches.itertuples():
        goal = round(run.target_pct - run.tolerance_pct, 6)
        epochs = pd.read_csv(Path(run.folder) / "epochs.csv")
        best = epochs[epochs["stage"] == "depth"].groupby("depth")["best_val_acc_pct"].max()
        left, stopped = best[best.index < run.depth], best[best.index == run.depth]
        met = run.depth == run.last_depth or (len(stopped) and stopped.iloc[0] >= goal)
        right += bool((left < goal).all() and met)
    return holds(right == len(searches)), (
        f"our implementation: {right} of {len(searches)} searches left every depth below its goal and stopped at the "
        "first that met it, or at the last. What Algorithm 1 leaves open is settled as in the released code; taken "
        "literally it would return a depth too many where the target is never met"
    )


def other_families(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
    lines = families.table(runs)
    if lines.empty:
        return "not measured", "11_other_networks has not been run in this profile"
    studies = [at for _, at in lines.groupby(["profile", "row", "protocol", "settings"], sort=False)]
    at = max(studies, key=lambda at: (list(PROFILES).index(at["profile"].iloc[0]), len(at)))
    return scaled(*families.verdict(at), at["not_comparable"].iloc[0])


def compression(question: str) -> Callable[[pd.DataFrame, pd.DataFrame, Path], Judgement]:
    def judge(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
        found = [pd.read_csv(file) for file in tables_of(folder, "compression-*")]
        if not found:
            return "not measured", "12_compress_further has not been run in this profile"
        table = max(found, key=lambda table: table["n"].max())
        first, said = table.fillna({"not_comparable": ""}).iloc[0], []
        for _, line in table[table["question"] == question].iterrows():
            said.append(compress.sentence(line))
        said.append(f"{first['row']}, {first['rule']}, on {first['processor']}")
        return scaled(compress.verdict(question, table), "; ".join(said), first["not_comparable"])

    return judge


def reused(question: str) -> Callable[[pd.DataFrame, pd.DataFrame, Path], Judgement]:
    def judge(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> Judgement:
        found = [pd.read_csv(file) for file in tables_of(folder, "reuse_answers")]
        if not found:
            return "not measured", "13_reuse_the_depth has not been run in this profile"
        at = found[0][found[0]["question"] == question].fillna({"not_comparable": ""})
        said = "; ".join(reuse.sentence(line) for _, line in at.iterrows())
        return scaled(reuse.verdict(at), said, at["not_comparable"].iloc[0])

    return judge


CHECKS: dict[str, Callable[[pd.DataFrame, pd.DataFrame, Path], Judgement]] = {
    "mnist_98_64": size_reduction("mnist"),
    "svhn_96_44": size_reduction("svhn"),
    "over_95": over_95,
    "within_1_75": within_1_75,
    "warmup_fluctuation": warmup(("fluctuation_pts", "loss_fluctuation", "jump_pts", "loss_jump")),
    "warmup_convergence": warmup(("epochs_to_90%", "epochs_to_100%")),
    "depth_follows_complexity": depth_follows_complexity,
    "flops_mean_latency": flops_mean_latency,
    "byproducts": byproducts,
    "other_families": other_families,
    "compress_further": compression("further"),
    "compression_cannot_reach": compression("reach"),
    "depth_is_reusable": reused("reused"),
    "expansion_matters": reused("expansion"),
    "algorithm_stops": algorithm_stops,
}


def judge(frame: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """One line per claim of `paper.CLAIMS`: its fields, verdict and why.

    Args:
        frame: `comparison.compare`. runs: `comparison.load_runs`. folder: results/<profile>.
    """
    lines = []
    for claim in CLAIMS:
        verdict, why = CHECKS[claim.key](frame, runs, folder)
        lines.append(asdict(claim) | {"verdict": verdict, "why": why})
    return pd.DataFrame(lines)


def evidence_of_slips() -> pd.DataFrame:
    """What `paper.SLIPS` says, computed: row, variant, cell, printed, measured, evidence."""
    frame = pd.DataFrame(comparison.structural_lines())
    slips = frame[frame["verdict"] == "paper's slip"]
    return slips[["row", "variant", "cell", "paper", "measured", "why"]]
