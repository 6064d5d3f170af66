"""Notebook 07: all tables and figures of a profile, from its run folders."""

from pathlib import Path

import pandas as pd

from odnlib.files import read_json, write_atomically, write_rounded_csv
from studies import (
    ablation,
    benchmark,
    claims,
    comparison,
    compression,
    depth_or_width,
    families,
    grades,
    own,
    reuse,
    rows,
    trend,
)
from studies.overview import fronts, paper_and_ours, titled
from studies.plots import save

STUDIES = (rows, ablation, trend, own, depth_or_width, families, compression, reuse, benchmark)
COLUMNS = ["row", "variant", "cell", "paper", "measured", "n", "grade", "verdict", "profile", "rule", "label", "why"]
WORTH = {
    "smoke": "embedded stand-in images and narrow networks: an illustration, no reproduction",
    "reduced": "real images, narrow networks: a trend, not a row of Table I",
    "quick": "real images, full-width networks, a cheap training",
    "paper": "real images, full-width networks, the whole rule unless overridden",
}


class Report:
    """Compares the runs of one profile, and of those with more work, with the paper; holds the resulting tables."""

    def __init__(self, results_dir: Path, profile: str):
        self.folder, self.runs = results_dir / profile, comparison.runs_from(results_dir, profile)
        self.comparison, self.headline = comparison.compare(self.runs), comparison.headline(self.runs)
        self.best = comparison.best_evidence(self.comparison)
        self.claims = claims.judge(results_dir, profile, self.runs, self.comparison)

    def summary(self) -> list[str]:
        """Return the comparison with the paper as a list of sentences."""
        lines = []
        trained = pd.Series([x.cell in comparison.TRAINED_CELLS[x.variant] for x in self.best.itertuples()])
        kinds = {"numbers of Table I that training decides": self.best[trained]}
        kinds |= {"numbers of Table I that need no training": self.best[~trained], "claims of the text": self.claims}
        for what, judged in kinds.items():
            verdicts = judged["verdict"].str.replace("measured; .*", "measured", regex=True)
            counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.value_counts().items())
            lines.append(f"Of the {len(judged)} {what}: {counts}")
        for profile, runs in self.runs.groupby("profile"):
            n, seeds = (
                f"{x} {word}{'s' * (x > 1)}" for x, word in ((len(runs), "run"), (runs["seed"].nunique(), "seed"))
            )
            lines.append(f"{profile}: {n} ({', '.join(runs['row'].unique())}; {seeds}) - {WORTH[profile]}")
        if not self.runs["profile"].isin(["quick", "paper"]).any():
            lines.append("No run at full width on real images is here: accuracies and depths are not comparable yet")
        return [titled(line) for line in lines]

    def provenance(self) -> pd.DataFrame:
        """Return a line for each run: commit, device, processor, threads, start, seconds, cost."""
        made_by = pd.DataFrame([read_json(folder / "provenance.json") for folder in self.runs["folder"]])
        names = ["commit", "code_unchanged_since_commit", "otherwise_than_commit", "device", "processor", "threads"]
        made_by = made_by.reindex(columns=[*names, "start", "seconds"]).fillna("")
        own = self.runs[["profile", "name", "train_tmacs", "training_version"]]
        return pd.concat([own.reset_index(drop=True), made_by.assign(commit=made_by["commit"].str[:10])], axis=1)


def write(results_dir: Path, profile: str) -> Report:
    """Write the files of every study, table1.csv, comparison.csv, claims.csv, comparison.md; return the Report."""
    for study in STUDIES:
        study.write(results_dir, profile)
    report = Report(results_dir, profile)
    report.folder.mkdir(parents=True, exist_ok=True)
    write_rounded_csv(report.folder / "comparison.csv", report.comparison)
    write_rounded_csv(report.folder / "claims.csv", report.claims)
    write_rounded_csv(report.folder / "table1.csv", comparison.table_1(report.runs))
    for name, draw in {"overview": paper_and_ours, "fronts": fronts}.items():
        if drawn := draw(report.runs):
            save(drawn, report.folder / "figures" / f"{name}.png")
    text = ["# Measured beside printed", *report.summary()]
    text += ["## Searches that met their goal, beside the whole network", markdown_table(report.headline)]
    text += [
        "## Depths at equal training, validation accuracy",
        markdown_table(grades.depths_at_equal_training(report.runs)),
    ]
    text += ["## Table I, number by number", markdown_table(report.best[COLUMNS])]
    text += ["## Claims of the text", markdown_table(report.claims[["section", "statement", "verdict", "why"]])]
    write_atomically(report.folder / "comparison.md", lambda path: path.write_text("\n\n".join(text) + "\n"))
    return report


def markdown_table(frame: pd.DataFrame) -> str:
    """Return a data frame as a Markdown table, floats with two decimals, missing values empty."""
    text = frame.astype(object).where(frame.notna(), "").map(lambda x: f"{x:.2f}" if isinstance(x, float) else str(x))
    lines = [list(text.columns), ["---"] * len(text.columns), *text.values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
