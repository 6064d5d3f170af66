"""Does warm-up do what Figure 3 says? Statistics of a search's epochs, paired over seeds.

All are taken over the search and fine-tuning (the warm-up's own epochs count where cost is meant).
"""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from odnlib.recipes import Recipe

ARMS = {"with warm-up": {}, "without warm-up": {"warmup_epochs": 0}}
SHARES_OF_GOAL = (0.5, 0.75, 0.9, 1.0)

# statistic: what it is; by the paper's claim each is smaller with warm-up
STATISTICS = {
    "jump_pts": "fall of validation accuracy at a depth increment (points, mean over increments)",
    "loss_jump": "rise of validation loss at a depth increment (mean over increments)",
    "fluctuation_pts": "epoch-to-epoch change of validation accuracy within a depth (points, mean of absolutes)",
    "loss_fluctuation": "epoch-to-epoch change of validation loss within a depth (mean of absolutes)",
}
STATISTICS |= {
    f"epochs_to_{share:.0%}": f"epochs, warm-up included, until validation reaches {share:.0%} of the goal"
    for share in SHARES_OF_GOAL
}


def name(recipe: Recipe) -> str:
    """What table and figure of a comparison are called, from its search with warm-up, whatever the seed."""
    return "warmup_ablation-" + recipe.name.replace("-odn", "", 1).rpartition("-seed")[0]


def statistics(epochs: pd.DataFrame, goal_pct: float) -> dict[str, float]:
    """The `STATISTICS` of one run's epochs.csv; nan where there is nothing to take them over."""
    search = epochs[epochs["stage"] != "warmup"]
    within = search.groupby("depth")
    last, first = within.last(), within.first()
    accuracy, loss = search["val_acc_pct"], search["val_loss"]
    same_depth = search["depth"].diff() == 0
    found = {
        "jump_pts": (last["val_acc_pct"].shift() - first["val_acc_pct"]).mean(),
        "loss_jump": (first["val_loss"] - last["val_loss"].shift()).mean(),
        "fluctuation_pts": accuracy.diff()[same_depth].abs().mean(),
        "loss_fluctuation": loss.diff()[same_depth].abs().mean(),
    }
    for share in SHARES_OF_GOAL:
        reached = epochs[epochs["val_acc_pct"] >= round(share * goal_pct, 6)]
        found[f"epochs_to_{share:.0%}"] = reached["epoch"].min() if len(reached) else math.nan
    return found


def paired(statistics_per_run: pd.DataFrame) -> pd.DataFrame:
    """Mean difference (with - without) per statistic over the seeds that have both, with its 95 % t-interval.

    The verdict is `open` unless the interval lies on one side of zero; two seeds or fewer leave it open in any case,
    because two equal differences would make an interval of no width.

    Args:
        statistics_per_run: columns arm, seed and the `STATISTICS`.

    Returns:
        columns statistic, meaning, with_warmup, without_warmup, difference, low, high, n, dropped, verdict; `dropped`
        counts seeds that lack the statistic in an arm, e.g. because it never reached the accuracy.
    """
    lines = []
    for name, meaning in STATISTICS.items():
        every = statistics_per_run.pivot(index="seed", columns="arm", values=name)
        arms = every.dropna()
        difference, n = arms["with warm-up"] - arms["without warm-up"], len(arms)
        half = stats.t.ppf(0.975, n - 1) * difference.std() / math.sqrt(n) if n > 1 else math.nan
        mean = difference.mean() if n else math.nan
        low, high = mean - half, mean + half
        verdict = "open" if n < 3 else "holds" if high < 0 else "does not hold" if low > 0 else "open"
        line = {"statistic": name, "meaning": meaning}
        line |= {"with_warmup": arms["with warm-up"].mean(), "without_warmup": arms["without warm-up"].mean()}
        line |= {"difference": mean, "low": low, "high": high, "n": n, "dropped": len(every) - n, "verdict": verdict}
        lines.append(line)
    return pd.DataFrame(lines)


def sentence(paired_statistics: pd.DataFrame, name: str) -> str:
    """What one statistic says, in words."""
    at = paired_statistics.set_index("statistic").loc[name]
    if not at["n"]:
        return f"{at['meaning']}: no seed has it in both arms"
    interval = f"95 % interval {at['low']:.2f} to {at['high']:.2f}" if at["n"] > 1 else "no interval from one seed"
    dropped = f", {at['dropped']} seeds left out that lack it in an arm" if at["dropped"] else ""
    return (
        f"{at['meaning']}: {at['with_warmup']:.2f} with and {at['without_warmup']:.2f} without warm-up, "
        f"difference {at['difference']:+.2f} ({interval}, n = {at['n']}{dropped}): the claim "
        + {"holds": "holds", "open": "is left open", "does not hold": "does not hold"}[at["verdict"]]
    )
