"""Notebook 06: does warm-up do what Figure 3 says? Searches with and without it, compared in pairs of equal seed."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from odnlib import recipes
from odnlib.files import read_json, write_rounded_csv
from studies import common, plots, reference

ARMS = {"with warm-up": {}, "without warm-up": {"warmup_epochs": 0}}
STUDY_KEYS = ["profile", "row", "rule", "settings"]  # what the seeds of a comparison have in common
FOLDERS = ["folder", "folder_without"]  # of its smallest seed, an arm each
PILOT = 100  # this seed, with warm-up, gives searches that have no goal (100 %) theirs; it is in no pair
BELOW_PILOT = 0.5  # points: that goal lies so far below the pilot's best at a depth beyond the first

# statistic: what it is; by the paper's claims each is smaller with warm-up
STATISTICS = {
    "jump_pts": "fall of validation accuracy at a depth increment (points, mean over increments)",
    "loss_jump": "rise of validation loss at a depth increment (mean over increments)",
    "fluctuation_pts": "epoch-to-epoch change of validation accuracy within a depth (points, mean of absolutes)",
    "loss_fluctuation": "epoch-to-epoch change of validation loss within a depth (mean of absolutes)",
}
# What two claims are judged by: the first of each, as `results/notes.md` says; the others are told beside it.
FLUCTUATION, CONVERGENCE = [*STATISTICS], ["epochs_to_100%", "epochs_to_90%"]
SHARES_OF_GOAL = (0.5, 0.75, 0.9, 1.0)
for share in SHARES_OF_GOAL:
    STATISTICS[f"epochs_to_{share:.0%}"] = f"epochs, warm-up included, until validation reaches {share:.0%} of the goal"


def statistics(epochs: pd.DataFrame, goal_pct: float) -> dict[str, float]:
    """Return the `STATISTICS` of one search from its epochs.csv; nan where a statistic has no value."""
    search = epochs[epochs["stage"] != "warmup"]
    measured, depth = search[["val_acc_pct", "val_loss"]], search["depth"]
    rise = (measured.groupby(depth).first() - measured.groupby(depth).last().shift()).mean()
    change = measured.diff()[depth.diff() == 0].abs().mean()
    values = [-rise["val_acc_pct"], rise["val_loss"], change["val_acc_pct"], change["val_loss"]]
    reached = [epochs["val_acc_pct"] >= round(share * goal_pct, 6) for share in SHARES_OF_GOAL]
    return dict(zip(STATISTICS, values + [epochs.loc[x, "epoch"].min() for x in reached], strict=True))


def paired(seeds: pd.DataFrame) -> pd.DataFrame:
    """Return one line per statistic: means with and without warm-up over the seeds that have both, their difference
    with its 95 % t-interval, and the verdict on the claim. `dropped` counts seeds without the statistic in an arm.

    `seeds` has one line per seed: its `STATISTICS` with warm-up and, named "..._without", those without it.
    """
    lines = []
    for statistic, meaning in STATISTICS.items():
        arms = seeds[[statistic, f"{statistic}_without"]].dropna().set_axis(["with_warmup", "without_warmup"], axis=1)
        difference, low, high = common.interval(arms["with_warmup"] - arms["without_warmup"])
        line = {"statistic": statistic, "meaning": meaning, **arms.mean(), "difference": difference}
        line |= {"low": low, "high": high, "n": len(arms), "dropped": len(seeds) - len(arms)}
        lines.append(line | {"verdict": common.judged(-high, -low)})
    return pd.DataFrame(lines)


def cut_short(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return searches that were kept without their end, in <profile>/cut_short/, as `common.finished` does."""
    lines = []
    for file in sorted(Path(results_dir).glob(f"{profile}/cut_short/*/epochs.csv")):
        line = vars(recipes.read_run(file.parent))
        line["training_version"] = read_json(file.with_name("provenance.json"))["training_version"]
        line["settings"] = common.in_common(line["changed"], line["training_version"], set())
        lines.append(line | {"not_comparable": common.why_not_comparable_to_paper(line, set())})
    return pd.DataFrame(lines)


def goals(runs: pd.DataFrame, epochs: list[pd.DataFrame]) -> list[float]:
    """Return the goal of each search in %; where it is 100 (none), the best validation accuracy of its study's pilot
    beyond depth 1, less `BELOW_PILOT`; nan without a pilot.
    """
    pilots = {}
    for run, records in zip(runs.itertuples(), epochs, strict=True):
        if run.seed == PILOT and run.warmup_epochs:
            deeper = records[(records["stage"] == "depth") & (records["depth"] > 1)]
            pilots[run.others] = deeper["val_acc_pct"].round(run.search_decimals).max() - BELOW_PILOT
    return [run.goal_pct if run.goal_pct < 100 else pilots.get(run.others, math.nan) for run in runs.itertuples()]


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return the lines of `paired` for every warm-up study, with `STUDY_KEYS`, not_comparable and `FOLDERS`."""
    runs = [common.finished(results_dir, profile, "odn"), cut_short(results_dir, profile)]
    if all(kind.empty for kind in runs):
        return runs[0]
    runs = pd.concat(runs, ignore_index=True)
    runs["others"] = common.shared(runs, {"warmup_epochs"})
    epochs = [pd.read_csv(folder / "epochs.csv") for folder in runs["folder"]]
    runs = runs.join(pd.DataFrame(map(statistics, epochs, goals(runs, epochs))))
    runs = runs[runs["seed"] != PILOT]
    same, warmed_up = ["profile", "row", "rule", "others", "seed"], runs["warmup_epochs"] > 0
    pairs = runs[warmed_up].merge(runs[~warmed_up], on=same, suffixes=("", "_without")).sort_values("seed")
    about = [*STUDY_KEYS, "not_comparable", *FOLDERS]
    tables = [paired(seeds).assign(**seeds[about].iloc[0]) for _, seeds in pairs.groupby(STUDY_KEYS)]
    return pd.concat([pd.DataFrame(), *tables], ignore_index=True)


def sentence(line: pd.Series) -> str:
    """Return one line of the warm-up `table` as a sentence."""
    if not line.n:
        return f"{line.meaning}: no seed has it in both arms"
    text = f"{line.meaning}: {line.with_warmup:.2f} with and {line.without_warmup:.2f} without warm-up, difference "
    text += f"{line.difference:+.2f} ({common.between(line.low, line.high, line.n)}"
    text += f", {line.dropped} seeds left out that lack it in an arm" if line.dropped else ""
    return f"{text}): the claim {'is left open' if line.verdict == common.OPEN else line.verdict}"


def verdict(lines: pd.DataFrame, statistics: list[str]) -> tuple[str, str]:
    """Return (verdict, reason) on a warm-up claim, from the study with most evidence.

    The first of `statistics` decides, the reason tells all.
    """
    study = common.most_telling(lines, STUDY_KEYS, lambda x: ((x["not_comparable"] == "").all(), x["n"].max()))
    study = study.set_index("statistic", drop=False).loc[statistics]
    why = "; ".join(map(sentence, study.itertuples()))
    return common.qualified(study["verdict"].iloc[0], why, study["not_comparable"].iloc[0])


def figure(lines: pd.DataFrame) -> Figure:
    """Draw Figure 3 anew: accuracy and loss with and without warm-up, for the smallest seed of one study."""
    folders = lines[FOLDERS].iloc[0]
    run = recipes.read_run(folders["folder"])
    drawn, axes = plt.subplots(2, 2, figsize=(plots.WIDTH, 5.2), layout="constrained", sharey="row", sharex=True)
    for (above, below), arm, folder in zip(axes.T, ARMS, folders, strict=True):
        epochs = pd.read_csv(folder / "epochs.csv")
        plots.curves(above, epochs, "acc_pct", "-")
        plots.curves(below, epochs, "loss", "-", titled=False)
        above.axhline(run.goal_pct, color=plots.GOAL, linestyle="--", label=f"goal {run.goal_pct:g} %")
        above.set_title(arm, pad=48)
        below.set_xlabel("epoch")
    papers = not run.embedded and run.width == 64  # then the axes of its figure
    axes[0, 0].set(ylabel="accuracy (%)", ylim=(50, 105) if papers else None)
    axes[1, 0].set(ylabel="loss", ylim=(0, 1.4) if papers else None)
    reference.behind(axes[:, 0], run)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return plots.caption(drawn, run, f"seed {run.seed}, one of {lines['n'].max()} pairs (the table has all)")


def write(results_dir: Path | str, profile: str) -> None:
    """Write the warm-up study's CSV tables and figures, one of each per study of this profile."""
    lines = table(results_dir, profile)
    for _, study in lines.groupby(STUDY_KEYS) if len(lines) else ():
        file = common.figure_file(results_dir, "warmup_ablation", study[STUDY_KEYS])
        plots.save(figure(study), file)
        write_rounded_csv(file.parent.with_name(f"{file.stem}.csv"), study.drop(columns=FOLDERS))
