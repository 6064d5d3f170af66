"""Notebook 06: does warm-up do what Figure 3 says? Searches with and without it, compared in pairs of equal seed."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from odnlib import recipes
from odnlib.files import write_table
from studies import common, plots, reference

ARMS = {"with warm-up": {}, "without warm-up": {"warmup_epochs": 0}}
STUDY_KEYS = ["profile", "row", "rule", "settings"]  # what the seeds of a comparison have in common
FOLDERS = ["folder", "folder_without"]  # of its smallest seed, an arm each

# statistic: what it is; by the paper's claims each is smaller with warm-up
STATISTICS = {
    "jump_pts": "fall of validation accuracy at a depth increment (points, mean over increments)",
    "loss_jump": "rise of validation loss at a depth increment (mean over increments)",
    "fluctuation_pts": "epoch-to-epoch change of validation accuracy within a depth (points, mean of absolutes)",
    "loss_fluctuation": "epoch-to-epoch change of validation loss within a depth (mean of absolutes)",
}
FLUCTUATION, CONVERGENCE = [*STATISTICS], ["epochs_to_90%", "epochs_to_100%"]  # what two claims are judged by
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


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return the lines of `paired` for every warm-up study, with `STUDY_KEYS`, not_comparable and `FOLDERS`."""
    runs = common.finished(results_dir, profile, "odn")
    if runs.empty:
        return runs
    epochs = [pd.read_csv(folder / "epochs.csv") for folder in runs["folder"]]
    runs = runs.join(pd.DataFrame(map(statistics, epochs, runs["goal_pct"])))
    runs["others"] = common.shared(runs, {"warmup_epochs"})
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
    """Return (verdict, reason) on a warm-up claim by its `statistics`, from the study of `table` with most evidence."""
    study = common.most_telling(lines, STUDY_KEYS, lambda x: ((x["not_comparable"] == "").all(), x["n"].max()))
    study = study[study["statistic"].isin(statistics)]
    verdicts, why = study["verdict"].unique(), "; ".join(map(sentence, study.itertuples()))
    return common.qualified(verdicts[0] if len(verdicts) == 1 else common.OPEN, why, study["not_comparable"].iloc[0])


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
        write_table(file.parent.with_name(f"{file.stem}.csv"), study.drop(columns=FOLDERS))
