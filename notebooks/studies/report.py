"""All of a profile's tables and figures, from its run folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from odnlib.files import read_json, replace, write_table
from odnlib.plots import save
from studies import ablation, benchmark, claims, comparison, compression, families, own, reuse, rows, trend
from studies.accuracies import accuracies

STUDIES = (rows, ablation, trend, own, families, compression, reuse, benchmark)
TOLD_FIRST = ("within_1_75", "warmup_fluctuation", "warmup_convergence", "depth_follows_complexity")


@dataclass
class Report:
    """All tables of one profile's comparison."""

    folder: Path
    runs: pd.DataFrame
    comparison: pd.DataFrame
    claims: pd.DataFrame
    headline: pd.DataFrame

    @property
    def best(self) -> pd.DataFrame:
        return comparison.best_evidence(self.comparison)

    def summary(self) -> list[str]:
        """What the comparison says, in sentences."""
        lines = []
        for what, judged in {"numbers that Table I prints": self.best, "claims of the text": self.claims}.items():
            counts = ", ".join(f"{count} {verdict}" for verdict, count in judged["verdict"].value_counts().items())
            lines.append(f"Of the {len(judged)} {what}: {counts}")
        for profile, of_profile in self.runs.groupby("profile") if len(self.runs) else ():
            seeds = of_profile["seed"].nunique()
            listed = f"{', '.join(of_profile['row'].unique())}; {seeds} seed{'s' * (seeds > 1)}"
            lines.append(f"{profile}: {len(of_profile)} runs ({listed}) - {comparison.WORTH[profile]}")
        told = self.claims[self.claims["key"].isin(TOLD_FIRST)]
        told = told[~told["verdict"].isin(["not measured", "not comparable"])]
        lines += [f"{claim.statement}: {claim.verdict}" for claim in told.itertuples()]
        if not len(self.runs) or not set(self.runs["profile"]) & {"quick", "paper"}:
            lines.append("No run at full width on real images is here: accuracies and depths are not comparable yet")
        return lines

    def provenance(self) -> pd.DataFrame:
        """Who made each run."""
        keys = ["commit", "code_unchanged_since_commit", "device", "processor", "threads", "start", "seconds"]
        lines = []
        for run in self.runs.itertuples():
            made_by = read_json(run.folder / "provenance.json")
            line = {"run": f"{run.profile}/{run.name}"} | {key: made_by[key] for key in keys}
            version = {"train_tmacs": run.train_tmacs, "training_version": run.training_version}
            lines.append(line | {"commit": (made_by["commit"] or "none")[:10]} | version)
        return pd.DataFrame(lines)


def make(results_dir: Path, profile: str) -> Report:
    """Read the run folders of `profile` and the stronger ones, compare, judge."""
    runs = comparison.runs_from(results_dir, profile)
    frame = comparison.compare(runs)
    judged = claims.judge(claims.Evidence(results_dir, profile, runs, frame))
    return Report(results_dir / profile, runs, frame, judged, comparison.headline(runs))


def write(results_dir: Path, profile: str) -> Report:
    """The tables and figures of every study of this profile, table1.csv, comparison.csv, claims.csv, comparison.md."""
    for study in STUDIES:
        study.write(results_dir, profile)
    report = make(results_dir, profile)
    report.folder.mkdir(parents=True, exist_ok=True)
    tables = {"comparison": report.comparison, "claims": report.claims, "table1": comparison.table_1(report.runs)}
    for name, table in tables.items():
        write_table(report.folder / f"{name}.csv", table)
    trained = report.comparison[(report.comparison["cell"] == "test_acc_pct") & (report.comparison["n"] > 0)]
    if len(trained):
        save(accuracies(trained), report.folder / "figures" / "accuracies.png")
    text = "\n\n".join(["# Measured beside printed", *report.summary(), *markdown(report)]) + "\n"
    replace(report.folder / "comparison.md", lambda path: path.write_text(text))
    return report


def markdown(report: Report) -> Iterable[str]:
    """The first tables as GitHub shows them."""
    columns = ["row", "variant", "cell", "paper", "measured", "std", "n", "verdict", "profile", "rule", "label", "why"]
    yield "## The networks at full width\n\n" + markdown_table(report.headline)
    yield "## Table I, number by number\n\n" + markdown_table(report.best[columns])
    yield "## Claims of the text\n\n" + markdown_table(report.claims[["section", "statement", "verdict", "why"]])


def markdown_table(frame: pd.DataFrame) -> str:
    """Numbers to two decimals, nothing for nothing."""
    text = frame.astype(object).where(frame.notna(), "").map(lambda x: f"{x:.2f}" if isinstance(x, float) else str(x))
    lines = [list(text.columns), ["---"] * len(text.columns), *text.values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
