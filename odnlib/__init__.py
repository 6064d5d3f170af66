"""Optimally Deep Networks: find the depth a dataset needs, cut the rest off.

`optimal_depth` does it for any blocks and images. The method is in `search`, its loop in `trainer`, one run from recipe
to result in `experiment`; `models` and `metrics` are what their names say.
"""

from odnlib.experiment import run
from odnlib.optimal import OptimalDepth, optimal_depth
from odnlib.recipes import Recipe, resolve

__all__ = ["OptimalDepth", "Recipe", "optimal_depth", "resolve", "run"]
