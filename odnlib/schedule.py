"""The rules of Algorithm 1, without a network: which stage follows which, at which rate, and when one has converged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from odnlib.recipes import Recipe

ALL_DEPTHS = 0  # as a stage's depth: every exit at once


@dataclass(frozen=True)
class Stage:
    """One uninterrupted piece of training."""

    kind: str  # warmup, depth, finetune, full
    depth: int  # ALL_DEPTHS in the warm-up
    rate: float  # learning rate at its start
    epochs: int | None  # at most; None: until converged
    start: str  # from which weights: "initial", "warm" (those that the warm-up left), "carried" (the previous depth's),
    # "current" (the same, and the same optimiser and plateau rule)
    decimals: int  # of the validation accuracy in %, as the plateau rule sees it
    goal_pct: float = math.inf  # validation accuracy that ends the stage


def next_stage(recipe: Recipe, ended: Stage | None, met_goal: bool) -> Stage | None:
    """The stage after `ended` (None: the first), or None after the last (Algorithm 1; Section III).

    At the largest depth there is nothing left to search, so it is fine-tuned at once (released code).
    """

    def at_depth(depth: int) -> Stage:
        first = depth == recipe.first_depth
        rate = recipe.rate * (1 if first else recipe.increment_rate_factor)
        epochs = recipe.first_epochs if first and recipe.first_epochs is not None else recipe.depth_epochs
        start = "carried" if recipe.carry_weights and not first else "warm"
        if depth == recipe.last_depth and not recipe.one_cycle:
            return Stage("finetune", depth, rate, recipe.finetune_epochs, start, recipe.finetune_decimals)
        return Stage("depth", depth, rate, epochs, start, recipe.search_decimals, recipe.goal_pct)

    if recipe.variant == "full":
        whole = Stage("full", recipe.last_depth, recipe.rate, recipe.full_epochs, "initial", recipe.finetune_decimals)
        return whole if ended is None else None
    if ended is None:
        return Stage("warmup", ALL_DEPTHS, recipe.warmup_rate, recipe.warmup_epochs, "initial", recipe.search_decimals)
    if ended.kind == "warmup":
        return at_depth(recipe.first_depth)
    if ended.kind == "depth" and not met_goal and ended.depth < recipe.last_depth:
        return at_depth(ended.depth + 1)
    if ended.kind == "depth":
        rate = recipe.rate if recipe.one_cycle else 0.0  # the plateau rule goes on with its own
        return Stage("finetune", ended.depth, rate, recipe.finetune_epochs, "current", recipe.finetune_decimals)
    return None


@dataclass
class Plateau:
    """The stopping criterion of Section III-C: the rate decays while nothing improves, then training has converged."""

    rate: float
    best_pct: float = 0.0
    epochs_without_improvement: int = 0

    def update(self, accuracy_pct: float, decay: float, decay_every: int) -> None:
        """Take in the validation accuracy after one more epoch."""
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
