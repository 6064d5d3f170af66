"""Notebook 07: all tables and figures of a profile, from its run folders."""

import copy
import re
from itertools import chain
from pathlib import Path

import pandas as pd
import thop
import torch

from odnlib import metrics, models
from odnlib.data import DATASETS
from odnlib.files import read_json, write_atomically, write_rounded_csv
from odnlib.paper import TABLE_1
from studies import ablation, benchmark, claims, common, comparison, depth_or_width, grades, rows
from studies.overview import WORDS_OF_RULE, draw_paper_and_ours, insert_dataset_titles
from studies.plots import save_figure

NUMBER_COLUMNS = ["row", "variant", "cell", "paper", "measured", "n", "grade", "verdict", "profile", "rule", "label"]
NUMBER_COLUMNS += ["why"]
HEADINGS_OF_DEPTHS = {"row": "dataset", "times": "times the usual epochs", "val_acc_pct": "validation accuracy (%)"}
HEADINGS_OF_DEPTHS |= {"goal_pct": "goal (%)"}
REMARKS_FILE = "remarks.md"  # beside the profiles: what is known of runs that are in no table, a line each
MEANING_OF_PROFILE = {
    "smoke": "embedded stand-in images and narrow networks: an illustration, no reproduction",
    "reduced": "real images, narrow networks: a trend, not a row of Table I",
    "quick": "real images, full-width networks, a cheap training",
    "paper": "real images, full-width networks, the whole rule unless overridden",
}


def make_headline_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the first table of report and README: each group of searches of `runs` that met the goal, beside whole
    networks (`comparison.pair_searches_with_whole_networks`), as text, means over n seeds, the paper's values in
    brackets; those at full width if there are any. Of depths that `equal` trained one by one it has the chosen one.
    """
    at_full_width, narrow = {row: [] for row in TABLE_1}, []
    for row, seeds, whole in comparison.pair_searches_with_whole_networks(runs):
        first, printed = seeds.iloc[0], TABLE_1[row]
        paper = "" if first["not_comparable"] else " ({})"
        alone = first["rule"] == "equal" and first["first_depth"] > 1
        untold = {"threads", "width"} | (common.DEPTH_RANGE_SETTINGS if alone else set())
        settings = common.describe_overrides(first, untold)
        rule = f"{WORDS_OF_RULE[first['rule']]} ({first['rule']})"
        settings = [rule, settings, first["profile"] * bool(first["not_comparable"])]
        accuracies, grade = grades.list_test_accuracies(seeds), grades.grade_runs(seeds, runs)
        grade = re.sub(r" \(.*|, n = .*", "", grade)  # reasons stand in Table I below
        told = {"dataset": printed.title + ("" if first["width"] == 64 else f", width {first['width']}")}
        told["depth (paper)"] = f"{seeds['depth'].mean():.3g}{paper.format(printed.odn.depth)}"
        accuracy = f"{accuracies['test_acc_pct'].mean():.2f}{paper.format(printed.odn.test_acc_pct)}"
        if accuracies["told"].any():  # each is told, since their mean hides what is judged
            by_run = accuracies[["test_acc_pct", "told"]].itertuples(index=False)
            accuracy += ": " + ", ".join(f"{x:.2f} {words}".strip() for x, words in by_run)
        told["test accuracy, % (paper)"], n = accuracy, len(accuracies)
        if len(whole):
            full, alike = whole["test_acc_pct"].mean(), set(whole["rule"]) == {first["rule"]}
            about_whole = f", n = {len(whole)}" + ", trained otherwise" * (not alike)
            told["whole network, % (paper)"] = f"{full:.2f}{paper.format(printed.full.test_acc_pct)}{about_whole}"
            told["difference (points)"] = f"{accuracies['test_acc_pct'].mean() - full:+.2f}"
        told |= {"n": str(n), "grade": grade, "trained": ", ".join(filter(None, settings))}
        cost = seeds["train_tmacs"].mean()
        cost = f"{cost:,.0f}" if cost >= 10 else f"{cost:.2g}"
        told["training, 10¹² MACs"] = cost + " (this depth alone)" * bool(alone)
        (narrow if first["not_comparable"] else at_full_width[row]).append(told)
    if narrow and not any(at_full_width.values()):
        return pd.DataFrame(narrow)
    for row, of_row in at_full_width.items():
        of_row += [] if of_row else [{"dataset": TABLE_1[row].title, "grade": "not measured at full width"}]
    return pd.DataFrame([*chain.from_iterable(at_full_width.values())])


def count_macs_by_thop(network: torch.nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the MACs that the package thop counts for a network and one image of shape (C, H, W): 4 per element
    entering a BatchNorm, where the paper has 5 (`odnlib.metrics`), and nothing for the average pool.
    """
    profiled = copy.deepcopy(network).eval()  # thop adds buffers to what it profiles
    return int(thop.profile(profiled, inputs=(torch.zeros(1, *image_shape),), verbose=False)[0])


def compare_macs() -> pd.DataFrame:
    """Return a table of the MACs, in millions, of Table I's networks: as printed, by the paper's rule, and by thop."""
    counted = []
    for row, printed in TABLE_1.items():
        shape, classes = DATASETS[row].image_shape, DATASETS[row].classes
        whole = models.build(printed.architecture, shape[0], classes)
        for variant, paper in {"full": printed.full, "odn": printed.odn}.items():
            cut = whole.truncate(paper.depth)
            macs = metrics.count_macs(cut, shape), count_macs_by_thop(cut, shape)
            counted.append((row, variant, paper.macs_m, *(count / 1e6 for count in macs)))
    return pd.DataFrame(counted, columns=["row", "variant", "paper", "paper's rule", "thop"])


class Report:
    """Compares the runs of one profile, and of those with more work, with the paper; holds runs, comparison, best,
    headline, depths (at equal training) and claims as tables, and the folder <results_dir>/<profile>.
    """

    def __init__(self, results_dir: Path, profile: str):
        self.folder, self.runs = results_dir / profile, comparison.read_runs_from_profile(results_dir, profile)
        self.comparison, self.headline = comparison.compare_with_paper(self.runs), make_headline_table(self.runs)
        self.best = comparison.select_best_evidence(self.comparison)
        depths = grades.average_depths_at_equal_training(self.runs) if len(self.runs) else pd.DataFrame(columns=["row"])
        self.depths = depths.assign(row=depths["row"].map(insert_dataset_titles)).rename(columns=HEADINGS_OF_DEPTHS)
        self.claims = claims.judge_claims(results_dir, profile, self.runs, self.comparison)

    def summarise(self) -> list[str]:
        """Return sentences: each dataset's depth and accuracy by its strongest evidence, in brackets the paper's; how
        many numbers of Table I and claims have which verdict.
        """
        trained = pd.Series([x.cell in comparison.CELLS_DECIDED_BY_TRAINING[x.variant] for x in self.best.itertuples()])
        sentences = []
        if "trained" in self.headline:
            told = self.headline.dropna(subset="trained").drop_duplicates("dataset").set_index("dataset")
            told = told[told["depth (paper)"].str.contains("(", regex=False)]  # those comparable with the paper
            depths = told["depth (paper)"].str.replace("(", "blocks (the paper: ")
            accuracies = told["test accuracy, % (paper)"].str.split(":").str[0].str.replace(" (", " % (")
            columns = told.index, depths, accuracies, told["trained"].str.split(" (", regex=False).str[0], told["grade"]
            sentences += ["{}: {} and {} by {}: {}".format(*x) for x in zip(*columns, strict=True)]
        kinds = {"numbers of Table I that training decides": self.best[trained]}
        ours = self.claims["section"] == "ours"
        kinds |= {"numbers of Table I that need no training": self.best[~trained]}
        kinds |= {"claims of the text": self.claims[~ours], "questions that the text leaves out": self.claims[ours]}
        for what, judged in kinds.items():
            verdicts = judged["verdict"].str.replace("; .*", "", regex=True)
            counts = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.value_counts().items())
            sentences.append(f"Of the {len(judged)} {what}: {counts}")
        if not self.runs["profile"].isin(["quick", "paper"]).any():
            sentences += ["No run at full width on real images is here: accuracies and depths are not comparable yet"]
        return [insert_dataset_titles(sentence) for sentence in sentences]

    def describe_runs(self) -> list[str]:
        """Return sentences: how many runs there are of each profile, and what `REMARKS_FILE` says."""
        remarks, sentences = self.folder.parent / REMARKS_FILE, []
        for profile, runs in self.runs.groupby("profile"):
            counts = {"run": len(runs), "seed": runs["seed"].nunique()}
            n, seeds = (f"{count} {word}{'s' * (count > 1)}" for word, count in counts.items())
            rows = ", ".join(runs["row"].unique())
            kept = f"{profile}/runs/*/result.json", f"{profile}/cut_short/*/recipe.json"
            others = len([file for names in kept for file in self.folder.parent.glob(names)]) - len(runs)
            n += f", and {others} more on own images or cut short" * bool(others)
            sentences.append(f"{profile}: {n} ({rows}; {seeds}) - {MEANING_OF_PROFILE[profile]}")
        sentences += remarks.read_text().splitlines() if remarks.exists() else []
        return [insert_dataset_titles(sentence) for sentence in sentences]

    def tabulate_provenance(self) -> pd.DataFrame:
        """Return a table, one row per run: commit, device, processor, threads, start, seconds, train_tmacs, and
        continued_on, the devices and processors that went on with it.
        """
        made_by = pd.DataFrame([read_json(folder / "provenance.json") for folder in self.runs["folder"]])
        later = made_by.reindex(columns=["continued_with_other"])["continued_with_other"]
        changes = [[] if x is None or isinstance(x, float) else x for x in later]  # nan: none
        places = [[x[name][1] for x in run for name in ("device", "processor") if name in x] for run in changes]
        made_by["continued_on"] = [", ".join(place) for place in places]
        names = ["commit", "code_unchanged_since_commit", "otherwise_than_commit", "device", "processor"]
        names += ["continued_on", "threads"]
        made_by = made_by.reindex(columns=[*names, "start", "seconds"]).fillna("")
        own = self.runs[["profile", "name", "train_tmacs", "training_version"]]
        return pd.concat([own.reset_index(drop=True), made_by.assign(commit=made_by["commit"].str[:10])], axis=1)


def write_report(results_dir: Path, profile: str) -> Report:
    """Write all tables and figures of a profile into <results_dir>/<profile>: those of every study, table1.csv,
    comparison.csv, claims.csv, comparison.md. Return the `Report` that they were made from.
    """
    for study in (rows, ablation, depth_or_width, benchmark):
        study.write_results(results_dir, profile)
    for name, study in claims.STUDY_OF_FILE_NAME.items():
        common.write_study(name, study, results_dir, profile)
    report = Report(results_dir, profile)
    report.folder.mkdir(parents=True, exist_ok=True)
    write_rounded_csv(report.folder / "comparison.csv", report.comparison)
    write_rounded_csv(report.folder / "claims.csv", report.claims)
    write_rounded_csv(report.folder / "table1.csv", comparison.average_runs_over_seeds(report.runs))
    save_figure(draw_paper_and_ours(report.runs), report.folder / "figures" / "overview.png")
    tables = {
        "Depths that met the goal, beside the whole network": report.headline,
        "Depths at equal training, validation accuracy": report.depths,
        "Table I, number by number": report.best[NUMBER_COLUMNS],
        "Claims of the text": report.claims[["section", "statement", "verdict", "answer", "why"]],
    }
    text = ["# Measured beside printed", *report.summarise(), *report.describe_runs()]
    text += [part for title, table in tables.items() for part in (f"## {title}", format_markdown_table(table))]
    page = insert_dataset_titles("\n\n".join(text) + "\n")
    write_atomically(report.folder / "comparison.md", lambda path: path.write_text(page))
    return report


def format_markdown_table(table: pd.DataFrame) -> str:
    """Return a data frame as a Markdown table, floats with two decimals, missing values empty; columns of whole
    numbers, but for percentages, without decimals.
    """
    numbers = table.select_dtypes("float").items()
    whole = [x for x, values in numbers if (values % 1 == 0).all() and "%" not in x and not x.endswith("_pct")]
    text = table.astype(dict.fromkeys(whole, int))
    text = text.astype(object).where(table.notna(), "").map(lambda x: f"{x:.2f}" if isinstance(x, float) else str(x))
    lines = [list(text.columns), ["---"] * len(text.columns), *text.values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
