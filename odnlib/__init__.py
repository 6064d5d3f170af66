"""Optimally Deep Networks: find the depth that a dataset needs and cut the remaining blocks off.

`optimal_depth` does so for any blocks and images. `search` holds the method, `trainer` its training loop, `experiment`
one training run from its settings (a `Recipe`) to its result, `models` the networks, `metrics` what is measured of
them.
"""

from odnlib.experiment import run
from odnlib.optimal import OptimalDepth, optimal_depth
from odnlib.recipes import Recipe, resolve

__all__ = ["OptimalDepth", "Recipe", "optimal_depth", "resolve", "run"]
