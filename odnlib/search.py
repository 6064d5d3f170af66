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
    """Holds the state of Section III-C's stopping criterion: learning rate, best accuracy, epochs without a better one.

    The rate decays while nothing improves. `train` stops after `patience` such epochs.
    """

    rate: float
    best_pct: float = 0.0  # rounded validation accuracy to beat; may be that of a shallower depth
    epochs_without_improvement: int = 0

    def update(self, accuracy_pct: float, decay: float, decay_every: int) -> None:
        """Take in one more epoch's rounded validation accuracy, in %; `decay` the rate after `decay_every` bad ones.

        Line 27, to the letter, decays it at every improvement too; Section III-C and the released code do not.
        """
        if accuracy_pct > self.best_pct:
            self.best_pct, self.epochs_without_improvement = accuracy_pct, 0
            return
        self.epochs_without_improvement += 1
        if self.epochs_without_improvement % decay_every == 0:
            self.rate *= decay


def one_cycle_rate(peak: float, progress: float) -> float:
    """Return the learning rate after the part `progress`, 0 to 1, of a training stage (Smith and Topin, 2017).

    It rises to `peak` over the first fifth of the stage and falls to 0 by its end.
    """
    return peak * min(progress / 0.2, (1 - progress) / 0.8)


def search(run: Run) -> int:
    """Find the depth by progressive depth expansion (Section III, Algorithm 1), train it, and return it."""
    recipe = run.recipe
    run.begin_depth(ALL_DEPTHS)  # lines 1 to 3
    for number in range(recipe.warmup_epochs):  # lines 4 to 9
        rate = recipe.warmup_rate * (1 + math.cos(math.pi * number / recipe.warmup_epochs)) / 2
        measured = run.epoch("warmup", ALL_DEPTHS, number, lambda part, rate=rate: rate)
        run.record(measured, 0.0, 0)
    run.keep_starting_weights()  # line 10
    best_pct = 0.0
    for depth in range(recipe.first_depth, recipe.last_depth + 1):  # lines 11, 14 and 30: the depth grows
        run.begin_depth(depth, run.warm)  # line 31: from the warmed-up weights, with a new optimiser
        rate = recipe.rate * (1 if depth == recipe.first_depth else recipe.increment_rate_factor)
        # Lines 12 and 13. The authors' logs carry the best accuracy over to a new depth, their released code does not.
        plateau = Plateau(rate, best_pct if recipe.carry_best else 0.0)
        if depth == recipe.last_depth:
            break  # as in the released code: no depth is left to grow to, so this one is "fine-tuned" at once
        train(run, "depth", depth, plateau, recipe.goal_pct)  # lines 15 to 29
        run.write_best_weights(f"depth{depth:02d}")  # a by-product (Section IV)
        best_pct = plateau.best_pct
        if best_pct >= recipe.goal_pct:  # line 14
            break
    # Section III-D: the last weights (not the best), optimiser, rate and counter go on, until convergence.
    train(run, "finetune", depth, plateau)
    run.write_best_weights("network")  # lines 32 and 33, but the best epoch's first `depth` blocks and head
    return depth


def train(run: Run, stage: str, depth: int, plateau: Plateau, goal_pct: float = math.inf) -> None:
    """Train one depth until it meets the goal, has converged, or has had all its epochs (lines 15 to 29). By rule
    `equal` only the number of epochs counts, as the last ones, at the smallest rate, gain most.
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
        plateau.update(rounded, recipe.decay, recipe.decay_every)  # lines 22 and 24 to 28
        run.keep_best(depth, measured["val_acc_pct"], rounded)  # line 23
        run.record(measured, plateau.best_pct, plateau.epochs_without_improvement)


def climb(run: Run) -> int:
    """Train depth after depth by rule `equal` (ours) and return the first that meets the goal, or the last: each from
    the initial weights, for the same epochs, the rate rising and falling once, without warm-up and fine-tuning. The
    accuracy is rounded: 94.47 % meets 94.5. (Notebook 10's ladder trains each of its networks by a run of one depth.)
    """
    recipe = run.recipe
    run.keep_starting_weights()  # here the initial weights
    for depth in range(recipe.first_depth, recipe.last_depth + 1):
        run.begin_depth(depth, run.warm)
        train(run, "depth", depth, Plateau(recipe.rate))
        run.write_best_weights(f"depth{depth:02d}")
        if run.best_pct >= recipe.goal_pct:
            break
    run.write_best_weights("network")
    return depth


def train_whole_network(run: Run) -> int:
    """Train the whole network, the baseline, as the recipe's rule trains a depth, and return its depth."""
    depth = run.recipe.last_depth
    run.begin_depth(depth)
    train(run, "full", depth, Plateau(run.recipe.rate))
    run.write_best_weights("network")
    return depth


def rate_within_epoch(recipe: Recipe, plateau: Plateau, number: int, most: int | None) -> Callable[[float], float]:
    """Return a function from the part of an epoch that is over, 0 to 1, to the learning rate there."""
    if recipe.one_cycle:
        return lambda part: one_cycle_rate(recipe.rate, (number + part) / most)
    return lambda part: plateau.rate


def train_variant(run: Run) -> int:
    """Search for the depth (variant odn) or train the whole network (full), and return the depth to cut out."""
    if run.recipe.variant == "full":
        return train_whole_network(run)
    return climb(run) if run.recipe.one_cycle else search(run)
