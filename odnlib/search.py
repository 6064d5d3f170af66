"""The paper's method, on one page: Algorithm 1, its stopping criterion, and beside it the search at equal training.

"Line 14" is a line of the paper's Algorithm 1, "Section III-C" a section of its text. What `run` does is in
`trainer.py`, also how an interrupted search goes on: what is decided here hangs on the recipe and on what `run.epoch`
returned, on nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from odnlib.recipes import Recipe
from odnlib.trainer import ALL_DEPTHS, Run


@dataclass
class Plateau:
    """The state of Section III-C's stopping criterion: decays the rate while nothing improves, and counts those epochs.

    `train` stops once they are `patience`.
    """

    rate: float
    best_pct: float = 0.0  # rounded validation accuracy to beat; may be that of a shallower depth
    epochs_without_improvement: int = 0

    def update(self, accuracy_pct: float, decay: float, decay_every: int) -> None:
        """Take in the rounded validation accuracy after one more epoch, in % (lines 21 to 28)."""
        if accuracy_pct > self.best_pct:
            self.best_pct, self.epochs_without_improvement = accuracy_pct, 0
            return
        self.epochs_without_improvement += 1
        if self.epochs_without_improvement % decay_every == 0:
            self.rate *= decay


def one_cycle(peak: float, progress: float) -> float:
    """Rate that rises over the first fifth of a stage and falls to 0 by its end (Smith and Topin, 2017).

    Args:
        progress: part of the stage that is over, 0 to 1.
    """
    return peak * min(progress / 0.2, (1 - progress) / 0.8)


def search(run: Run) -> int:
    """Progressive depth expansion (Section III, Algorithm 1). Returns the depth found."""
    recipe = run.recipe
    run.begin(ALL_DEPTHS)  # lines 1 to 3
    for number in range(recipe.warmup_epochs):  # lines 4 to 9
        rate = recipe.warmup_rate * (1 + math.cos(math.pi * number / recipe.warmup_epochs)) / 2
        measured = run.epoch("warmup", ALL_DEPTHS, number, lambda part, rate=rate: rate)
        run.record(measured, 0.0, 0)
    run.keep_warm()  # line 10
    best_pct = 0.0
    for depth in range(recipe.first_depth, recipe.last_depth + 1):  # lines 11, 14 and 30: the depth grows
        run.begin(depth, run.warm)  # line 31: from the warmed-up weights, with a new optimiser
        rate = recipe.rate * (1 if depth == recipe.first_depth else recipe.increment_rate_factor)
        # Lines 12 and 13. The authors' logs carry the best accuracy over to a new depth, their released code does not.
        plateau = Plateau(rate, best_pct if recipe.carry_best else 0.0)
        if depth == recipe.last_depth:
            break  # as in the released code: no depth is left to grow to, so this one is "fine-tuned" at once
        train(run, "depth", depth, plateau, recipe.goal_pct)  # lines 15 to 29
        run.leave(f"depth{depth:02d}")  # a by-product (Section IV)
        best_pct = plateau.best_pct
        if best_pct >= recipe.goal_pct:  # line 14
            break
    train(run, "finetune", depth, plateau)  # Section III-D: weights, optimiser and rate go on; until convergence
    run.leave("network")  # the first `depth` blocks and their head, of the best epoch
    return depth


def train(run: Run, stage: str, depth: int, plateau: Plateau, goal_pct: float = math.inf) -> None:
    """Train one depth until it meets the goal, has converged, or has had all its epochs (lines 15 to 29). At equal
    training only the number of epochs counts, as the last ones, at the smallest rate, gain most.
    """
    recipe, most_epochs = run.recipe, run.recipe.most_epochs(stage)
    decimals = recipe.search_decimals if stage == "depth" else recipe.finetune_decimals
    for number in count():
        converged = plateau.epochs_without_improvement >= recipe.patience  # Section III-C
        met_goal = plateau.best_pct >= goal_pct
        if number == most_epochs or ((converged or met_goal) and not recipe.one_cycle):
            return
        measured = run.epoch(stage, depth, number, rate_within_epoch(recipe, plateau, number, most_epochs))
        rounded = round(measured["val_acc_pct"], decimals)
        plateau.update(rounded, recipe.decay, recipe.decay_every)
        run.keep_best(depth, measured["val_acc_pct"], rounded)
        run.record(measured, plateau.best_pct, plateau.epochs_without_improvement)


def climb(run: Run) -> int:
    """Algorithm 1 at equal training (ours): every depth from the initial weights, for the same epochs, the rate rising
    and falling once, without warm-up and fine-tuning. Returns the first depth that meets the goal, or the last. A run
    of one depth is a rung of the ladder, whose networks differ in width, too (`notebooks/studies/ladder.py`).
    """
    recipe = run.recipe
    run.keep_warm()  # here the initial weights
    for depth in range(recipe.first_depth, recipe.last_depth + 1):
        run.begin(depth, run.warm)
        plateau = Plateau(recipe.rate)
        train(run, "depth", depth, plateau)
        run.leave(f"depth{depth:02d}")
        if plateau.best_pct >= recipe.goal_pct:
            break
    run.leave("network")
    return depth


def whole(run: Run) -> int:
    """Train the whole network by itself, as the recipe's rule trains a depth: the baseline. Returns its depth."""
    depth = run.recipe.last_depth
    run.begin(depth)
    train(run, "full", depth, Plateau(run.recipe.rate))
    run.leave("network")
    return depth


def rate_within_epoch(recipe: Recipe, plateau: Plateau, number: int, most: int | None) -> Callable[[float], float]:
    """Return the learning rate of an epoch as a function of the part (0 to 1) of it that is over."""
    if recipe.one_cycle:
        return lambda part: one_cycle(recipe.rate, (number + part) / most)
    return lambda part: plateau.rate


def find_depth(run: Run) -> int:
    """Search, or train the whole network, as the recipe asks. Returns the depth of the network to cut out."""
    if run.recipe.variant == "full":
        return whole(run)
    return climb(run) if run.recipe.one_cycle else search(run)
