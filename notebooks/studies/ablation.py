"""Notebook 06: does warm-up do what Figure 3 says? Searches with and without it, compared in pairs of equal seed."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from odnlib import recipes
from odnlib.files import write_rounded_csv
from studies import common, plots
from studies.common import STUDY_COLUMNS

SETTINGS_WITH_AND_WITHOUT_WARMUP = {"with warm-up": {}, "without warm-up": {"warmup_epochs": 0}}
FOLDER_COLUMNS = ["folder", "folder_without"]  # of the smallest seed, with and without warm-up
PAIRED_STATISTICS = {"jump_pts": "fall at a new depth", "fluctuation_pts": "change by epoch"}
PILOT_SEED = 100  # this seed, with warm-up, gives searches that have no goal (100 %) theirs; it is in no pair
GOAL_BELOW_PILOT_PTS = 0.5  # that goal lies so far below the pilot's best at a depth beyond the first

# statistic: what it is; by the paper's claims each is smaller with warm-up
MEANING_OF_STATISTIC = {
    "jump_pts": "fall of validation accuracy at a depth increment (points, mean over increments)",
    "loss_jump": "rise of validation loss at a depth increment (mean over increments)",
    "fluctuation_pts": "epoch-to-epoch change of validation accuracy within a depth (points, mean of absolutes)",
    "loss_fluctuation": "epoch-to-epoch change of validation loss within a depth (mean of absolutes)",
}
# What two claims are judged by: the first of each, as `results/notes.md` says; the others are told beside it.
FLUCTUATION_STATISTICS = [*MEANING_OF_STATISTIC]
SHARES_OF_GOAL = (1.0, 0.9, 0.75, 0.5)
MEANING_OF_STATISTIC |= {
    f"epochs_to_{share:.0%}": f"epochs, warm-up included, until validation reaches {share:.0%} of the goal"
    for share in SHARES_OF_GOAL
}
CONVERGENCE_STATISTICS = [*MEANING_OF_STATISTIC][len(FLUCTUATION_STATISTICS) :]


def compute_statistics(epochs: pd.DataFrame, goal_pct: float) -> dict[str, float]:
    """Return the values of `MEANING_OF_STATISTIC` for a search with this epochs.csv and goal in %; nan where none."""
    search = epochs[epochs["stage"] != "warmup"]
    measured, depth = search[["val_acc_pct", "val_loss"]], search["depth"]
    rise = (measured.groupby(depth).first() - measured.groupby(depth).last().shift()).mean()
    change = measured.diff()[depth.diff() == 0].abs().mean()
    values = [-rise["val_acc_pct"], rise["val_loss"], change["val_acc_pct"], change["val_loss"]]
    # In the warm-up's records the accuracy is the mean over all exits, not that of a network.
    reached = [search["val_acc_pct"] >= round(share * goal_pct, 6) for share in SHARES_OF_GOAL]
    values += [search.loc[x, "epoch"].min() for x in reached]
    return dict(zip(MEANING_OF_STATISTIC, values, strict=True))


def compare_paired_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """Return a table, one row per statistic: means with_warmup and without_warmup over the n seeds that have both,
    their difference with its 95 % t-interval (low, high), the verdict on the claim that warm-up makes it smaller,
    dropped, how many seeds lack it in an arm, and pairs, every seed's two values. `seeds` has one row per seed: its
    statistics with warm-up and, named "..._without", those without it.
    """
    compared = []
    for statistic, meaning in MEANING_OF_STATISTIC.items():
        arms = seeds[[statistic, f"{statistic}_without"]].dropna().set_axis(["with_warmup", "without_warmup"], axis=1)
        difference, low, high = common.confidence_interval(arms["with_warmup"] - arms["without_warmup"])
        row = {"statistic": statistic, "meaning": meaning, **arms.mean(), "difference": difference}
        row |= {"low": low, "high": high, "n": len(arms), "dropped": len(seeds) - len(arms)}
        compared.append(row | {"verdict": common.judge_interval(-high, -low), "pairs": arms.to_numpy().tolist()})
    return pd.DataFrame(compared)


def find_goals_pct(runs: pd.DataFrame, epochs: list[pd.DataFrame]) -> list[float]:
    """Return the goal of each search in `runs`, in % of validation accuracy, given its epochs.csv in `epochs`; where it
    is 100 (none), the best of its study's pilot beyond depth 1, less `GOAL_BELOW_PILOT_PTS`; nan without a pilot.
    """
    pilots = {}
    for run, records in zip(runs.itertuples(), epochs, strict=True):
        if run.seed == PILOT_SEED and run.warmup_epochs:
            deeper = records[(records["stage"] == "depth") & (records["depth"] > 1)]
            best = deeper["val_acc_pct"].round(run.search_decimals).max()
            pilots[run.others] = best - GOAL_BELOW_PILOT_PTS
    return [run.goal_pct if run.goal_pct < 100 else pilots.get(run.others, math.nan) for run in runs.itertuples()]


def read_results(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return the `compare_paired_seeds` of every warm-up study of a profile, with `STUDY_COLUMNS`, not_comparable and
    `FOLDER_COLUMNS`; from finished searches and from those kept without their end, in <profile>/cut_short/.
    """
    folders = sorted(Path(results_dir).glob(f"{profile}/cut_short/*/"))
    unfinished = pd.DataFrame([common.read_run(folder, set()) for folder in folders])
    runs = pd.concat([common.read_finished_runs(results_dir, profile, "odn"), unfinished], ignore_index=True)
    if runs.empty:
        return runs
    runs["others"] = [common.describe_overrides(run, {"warmup_epochs"}) for run in runs.itertuples()]
    epochs = [pd.read_csv(folder / "epochs.csv") for folder in runs["folder"]]
    runs = runs.join(pd.DataFrame(map(compute_statistics, epochs, find_goals_pct(runs, epochs))))
    runs = runs[runs["seed"] != PILOT_SEED]
    same, warmed_up = ["profile", "row", "rule", "others", "seed"], runs["warmup_epochs"] > 0
    pairs = runs[warmed_up].merge(runs[~warmed_up], on=same, suffixes=("", "_without")).sort_values("seed")
    about = [*STUDY_COLUMNS, "not_comparable", *FOLDER_COLUMNS]
    tables = []
    for _, study in pairs.groupby(STUDY_COLUMNS):
        difference = study["jump_pts"] - study["jump_pts_without"]
        typical = (difference - difference.median()).abs().fillna(0).idxmin()  # it is drawn
        tables.append(compare_paired_seeds(study).assign(**study.loc[typical, about]))
    return pd.concat([pd.DataFrame(), *tables], ignore_index=True)


def describe_statistic(result: pd.Series) -> str:
    """Return a row of `read_results` as a sentence: both means, their difference, its interval and the verdict."""
    if not result.n:
        return f"{result.meaning}: no seed has it in both arms"
    text = f"{result.meaning}: {result.with_warmup:.2f} with and {result.without_warmup:.2f} without warm-up, "
    text += f"difference {result.difference:+.2f} ({common.describe_interval(result.low, result.high, result.n)}"
    text += f", {result.dropped} left out that lack it in an arm" if result.dropped else ""
    return f"{text}): the claim {'is left open' if result.verdict == common.CLAIM_OPEN else result.verdict}"


def judge_claim(results: pd.DataFrame, statistics: list[str]) -> tuple[str, str]:
    """Return (verdict, reason) on a warm-up claim, by the study in `results` with most evidence: the first of
    `statistics`, names, decides, the reason tells all.
    """
    paired = results[results.groupby(STUDY_COLUMNS)["n"].transform("max") > 1]  # one pair has no interval
    study = common.select_strongest_study(
        results if paired.empty else paired, STUDY_COLUMNS, lambda x: (x["not_comparable"].max() == "", x["n"].max())
    )
    study = study.set_index("statistic", drop=False).loc[statistics]
    why = "; ".join(map(describe_statistic, study.itertuples()))
    why = "one pair has no interval (profile reduced has several); " * bool(study["n"].max() < 2) + why
    return common.qualify_verdict(study["verdict"].iloc[0], why, study["not_comparable"].iloc[0])


def draw_results(results: pd.DataFrame) -> Figure:
    """Draw accuracy and loss by epoch with and without warm-up (Figure 3) for one study's pair whose fall at a new
    depth is the median, and beside them the authors' log or `PAIRED_STATISTICS` of every pair.
    """
    folders = results[FOLDER_COLUMNS].iloc[0]
    run, searches = recipes.read_run(folders["folder"]), [pd.read_csv(folder / "epochs.csv") for folder in folders]
    has_log = plots.read_authors_log(run) is not None
    widths = {"width_ratios": [3, 3] + ([3] if has_log else [1.8])}
    drawn, axes = plots.make_axes(2, 3, 5.2, sharex="col", gridspec_kw=widths)
    for left, *others in axes:
        for axis in others[: 1 + has_log]:
            axis.sharey(left)
            axis.tick_params(labelleft=False)
    for axis, (statistic, title) in zip(axes[:, 2], PAIRED_STATISTICS.items(), strict=True):
        if has_log:
            break
        told = results.set_index("statistic").loc[statistic]
        for pair in told["pairs"]:
            axis.plot(pair, "o-", color="0.4", ms=4, lw=1)
        axis.set(xticks=(0, 1), xticklabels=("with", "without"), xlim=(-0.4, 1.4), ymargin=0.1)
        axis.set_ylabel("points of accuracy")
        axis.set_ylim(bottom=0)
        interval = f"\n({told['low']:.1f} to {told['high']:.1f})" * bool(told["n"] > 2)
        form = "+.1f" if abs(told["difference"]) >= 1 else "+.2f"
        axis.set_title(f"{title}\ndifference {told['difference']:{form}}{interval}", fontsize=9)
    for axis, label, papers in zip(axes[:, 0], ("accuracy (%)", "loss"), ((50, 105), (0, 1.4)), strict=True):
        axis.set_ylabel(label)
        if not run.embedded and run.width == 64:
            axis.set_ylim(papers)  # the axes of its figure
    if has_log:
        plots.draw_authors_curves(axes[:, 2], run)
        axes[0, 2].set_title("authors' log, with warm-up", pad=48)
        axes[1, 2].set_xlabel("epoch")
    for (above, below), arm, epochs in zip(axes.T[:2], SETTINGS_WITH_AND_WITHOUT_WARMUP, searches, strict=True):
        plots.draw_curves(above, epochs, "acc_pct", "-")
        plots.draw_curves(below, epochs, "loss", "-", titled=False)
        if run.goal_pct < 100:
            above.axhline(run.goal_pct, color=plots.COLOR_GOAL, linestyle="--", label=f"goal {run.goal_pct:g} %")
        above.set_title(arm, pad=48)
        below.set_xlabel("epoch")
    for axis in axes[0, :2]:  # the same epochs in both arms
        axis.set_xlim(-2, 1.02 * max(len(epochs) for epochs in searches))
    plots.legend_above(drawn, 4)
    n = results["n"].max()
    told = f"seed {run.seed}" + f", whose fall is the median of {n} pairs" * bool(n > 1)
    if run.folder.parent.name == "cut_short":
        told += f"; cut within depth {searches[0]['depth'].max()}"
    return plots.write_caption(drawn, run, told)


def write_results(results_dir: Path | str, profile: str) -> None:
    """Write a CSV table and a figure for each warm-up study of a profile."""
    results = read_results(results_dir, profile)
    for _, study in results.groupby(STUDY_COLUMNS) if len(results) else ():
        file = common.figure_path(results_dir, "warmup_ablation", study[STUDY_COLUMNS])
        plots.save_figure(draw_results(study), file)
        write_rounded_csv(file.parent.with_name(f"{file.stem}.csv"), study.drop(columns=[*FOLDER_COLUMNS, "pairs"]))
