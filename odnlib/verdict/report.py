"""table1.csv, comparison.csv, comparison.md and a self-contained report.html - functions of run folders alone."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from odnlib import plots, redraw, results
from odnlib.paper import CONTRADICTIONS, TABLE_1
from odnlib.verdict import campaign, claims, comparison

WORTH = {
    "smoke": "embedded stand-in images and narrow networks: an illustration, no reproduction",
    "reduced": "real images, narrow networks: a trend, not a row of Table I",
    "quick": "real images, full-width networks, a cheap training",
    "paper": "real images, full-width networks, the whole rule unless overridden",
}
TOLD_FIRST = ("within_1_75", "warmup_fluctuation", "warmup_convergence", "depth_follows_complexity")
UNTOLD = ("not measured", "not comparable")  # verdicts that the first page need not repeat
HEADLINE = {  # cells, with titles and formats
    "depth": ("depth", "{:g}"),
    "size_mb": ("MB", "{:.2f}"),
    "macs_m": ("million MACs", "{:.1f}"),
    "test_acc_pct": ("test accuracy, %", "{:.2f}"),
}
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}td,th{padding:.25rem .6rem;
border-bottom:1px solid #ddd;text-align:left;vertical-align:top}th{background:#f4f4f4}img{max-width:100%}
.banner{background:#fff3cd;border-left:.4rem solid #de8f05;padding:.6rem 1rem}h2{margin-top:2.5rem}"""


@dataclass
class Report:
    """All tables of one profile's comparison."""

    profile: str
    folder: Path
    runs: pd.DataFrame
    comparison: pd.DataFrame
    best: pd.DataFrame
    claims: pd.DataFrame
    sensitivity: pd.DataFrame
    table_1: pd.DataFrame

    def headline(self) -> pd.DataFrame:
        """What stands beside Table I: per row the strongest comparable runs, or why there are none."""
        lines = []
        for row, printed in TABLE_1.items():
            for variant, network in {"odn": "optimally deep", "full": "whole"}.items():
                paper, line = getattr(printed, variant), {"dataset": printed.title, "network": network}
                found = (
                    self.runs[(self.runs["row"] == row) & (self.runs["variant"] == variant)] if len(self.runs) else []
                )
                found = found[found["not_comparable"] == ""] if len(found) else found
                if not len(found):
                    lines.append(line | {"trained": campaign.why_not_run(row, variant)})
                    continue
                strongest = max(found["profile"], key=list(WORTH).index)
                kinds = found[found["profile"] == strongest].groupby(["protocol", "tag"], sort=False)
                at = max((kind for _, kind in kinds), key=lambda kind: (len(kind), -len(kind["tag"].iloc[0])))
                made_by = [results.read_json(Path(folder) / "provenance.json") for folder in at["folder"]]
                hours = sum(made["seconds"] for made in made_by) / 3600
                for cell, (title, form) in HEADLINE.items():
                    line[f"{title} (paper)"] = f"{form.format(at[cell].mean())} ({form.format(getattr(paper, cell))})"
                lines.append(line | {"trained": (
                    f"profile {strongest}, protocol {at['protocol'].iloc[0]}, n = {len(at)}; {hours:.1f} h in all on "
                    f"{made_by[0]['processor']}, {made_by[0]['threads']} thread{'s' * (made_by[0]['threads'] > 1)}"
                )})  # fmt: skip
        return pd.DataFrame(lines)

    def summary(self) -> list[str]:
        """What the comparison says, in sentences."""
        lines = []
        for what, judged in {"numbers that Table I prints": self.best, "claims of the text": self.claims}.items():
            counts = ", ".join(f"{count} {verdict}" for verdict, count in judged["verdict"].value_counts().items())
            lines.append(f"Of the {len(judged)} {what}: {counts}")
        for profile in WORTH:
            here = self.runs[self.runs["profile"] == profile] if len(self.runs) else self.runs
            if len(here):
                rows, seeds = ", ".join(here["row"].unique()), here["seed"].nunique()
                lines.append(
                    f"{profile}: {len(here)} runs ({rows}; {seeds} seed{'s' * (seeds > 1)}) - {WORTH[profile]}"
                )
        judged = self.claims[self.claims["key"].isin(TOLD_FIRST)]
        lines += [f"{x.statement}: {x.verdict}" for x in judged.itertuples() if x.verdict not in UNTOLD]
        if not len(self.runs) or not set(self.runs["profile"]) & {"quick", "paper"}:
            lines.append("No run at full width on real images is here: accuracies and depths are not comparable yet")
        return lines


def make(results_dir: Path, profile: str) -> Report:
    """Read the run folders of `profile` and the stronger ones, compare, judge."""
    runs = comparison.load_runs(results_dir, profile)
    frame = comparison.compare(runs)
    folder = Path(results_dir) / profile
    judged = claims.judge(frame, runs, folder)
    best, sensitivity = comparison.best_evidence(frame), comparison.sensitivity(frame)
    return Report(profile, folder, runs, frame, best, judged, sensitivity, comparison.table_1(runs))


def provenance(runs: pd.DataFrame) -> pd.DataFrame:
    """Who made each run."""
    keys = [
        "commit",
        "code_unchanged_since_commit",
        "device",
        "processor",
        "threads",
        "start",
        "seconds",
        "train_tmacs",
    ]
    lines = []
    for run in runs.itertuples():
        made_by = results.read_json(Path(run.folder) / "provenance.json")
        line = {"run": f"{run.profile}/{Path(run.folder).name}"} | {key: made_by[key] for key in keys}
        lines.append(line | {"commit": (made_by["commit"] or "none")[:10], "code is today's": not run.stale})
    return pd.DataFrame(lines)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as text: two decimals, nothing for nothing."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "" if value != value else f"{value:.2f}"
        return "" if value is None else str(value)

    return frame.map(text) if len(frame) else frame


def markdown_table(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), ["---"] * len(frame.columns), *readable(frame).values.tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows)


def sections(report: Report) -> Iterable[tuple[str, str, pd.DataFrame]]:
    """Title, explanation and table of every part."""
    yield (
        "The networks at full width",
        "The strongest runs on the real images at full width, means over n; in brackets what Table I prints.",
        report.headline(),
    )
    cells = ["row", "variant", "cell", "paper", "measured", "std", "n", "verdict", "profile", "protocol", "tag", "why"]
    yield (
        "Table I, number by number",
        "Best evidence for each printed number. Parameters, sizes and MACs are measured at the paper's depth and full "
        "width, whatever the profile; accuracies and depths come from training. Verdicts: equal (same printed digits), "
        "close (stated tolerance), better, worse, paper's slip, not comparable, not measured.",
        report.best[cells].assign(n=report.best["n"].where(report.best["n"] > 0, "")),
    )
    columns = ["section", "statement", "verdict", "why", "check"]
    yield "Claims of the text", "What the paper says in words, and how it was checked.", report.claims[columns]
    slips = "Printed figures that repeat another network's, or differ in one digit; computed."
    yield "Slips in Table I", slips, claims.evidence_of_slips()
    contradictions = pd.DataFrame(CONTRADICTIONS, columns=["about", "one place", "another"])
    yield (
        "Where the paper contradicts itself",
        "`--protocol` chooses a reading: released or printed (or ours, fast).",
        contradictions,
    )
    yield (
        "How the accuracy verdicts depend on the tolerance",
        "Our tolerance is half the 95 % interval of the difference of two runs: the test set's binomial variance, and "
        "the seed-to-seed variance where there are several seeds (the paper's figures are single runs). Here it is "
        "replaced by a fixed number of points. Empty while no accuracy is comparable.",
        report.sensitivity,
    )
    yield "What the runs found", "Means over seeds, one line per kind of run.", report.table_1


Sections = list[tuple[str, str, pd.DataFrame]]


def write_markdown(report: Report, told: Sections) -> None:
    parts = ["# Measured beside printed", *report.summary()]
    for title, explanation, table in told:
        parts += [f"## {title}", explanation, markdown_table(table) if len(table) else "Nothing here."]
    text = "\n\n".join(parts) + "\n"
    results.replace(report.folder / "comparison.md", lambda path: path.write_text(text))


def write_html(report: Report, told: Sections) -> None:
    """One page with everything in it; opens from disk."""
    parts = [f"<h1>Optimally Deep Networks: measured beside printed</h1><p>Profile {report.profile}.</p>"]
    parts.append("<div class=banner>" + "<br>".join(html.escape(line) for line in report.summary()) + "</div>")
    for title, explanation, table in [*told, ("Who made each run", "", provenance(report.runs))]:
        shown = readable(table).to_html(index=False, border=0) if len(table) else "<p>Nothing here.</p>"
        parts.append(f"<h2>{title}</h2><p>{html.escape(explanation)}</p>{shown}")
    parts.append("<h2>Figures</h2>")
    for file in sorted((report.folder / "figures").glob("*.png")):
        image = base64.b64encode(file.read_bytes()).decode()
        name = html.escape(file.stem)
        picture = f'<img alt="{name}" src="data:image/png;base64,{image}">'
        parts.append(f"<figure><figcaption>{name}</figcaption>{picture}</figure>")
    head = f"<meta charset=utf-8><title>Optimally Deep Networks</title><style>{STYLE}</style>"
    page = f'<!doctype html><html lang="en">{head}'
    text = page + "\n".join(parts) + "</html>\n"
    results.replace(report.folder / "report.html", lambda path: path.write_text(text))


def write(results_dir: Path, profile: str) -> Report:
    """Every table and figure of one profile from its run folders: those of `redraw`, table1.csv, comparison.csv,
    claims.csv, comparison.md and report.html.
    """
    redraw.everything(Path(results_dir), profile)
    report = make(results_dir, profile)
    report.folder.mkdir(parents=True, exist_ok=True)
    tables = {"table1": report.table_1, "comparison": report.comparison, "claims": report.claims}
    for name, table in tables.items():
        results.write_table(report.folder / f"{name}.csv", table)
    accuracies = report.comparison[(report.comparison["cell"] == "test_acc_pct") & (report.comparison["n"] > 0)]
    if len(accuracies):
        plots.save(plots.accuracies(accuracies), report.folder / "figures" / "accuracies.png")
    told = list(sections(report))
    write_markdown(report, told)
    write_html(report, told)
    return report
