"""Which depth a dataset needs, and whether it rises with the paper's: by hand."""

import pandas as pd
import pytest

from odnlib import redraw
from odnlib.paper import TABLE_1
from odnlib.recipes import RecipeError
from odnlib.studies import trend
from odnlib.verdict import comparison
from tests.test_comparison import pretend_run


def test_depth_needed_is_the_smallest_within_the_tolerance():
    depths = pd.DataFrame({"depth": [1, 2, 3, 4, 5], "val_acc_pct": [90.0, 94.6, 95.0, 94.4, None]})
    assert [trend.depth_needed(depths, tolerance) for tolerance in (0.0, 0.4, 0.5, 5.0)] == [3, 2, 2, 1]


def needed(depths: dict[str, list[int]]) -> pd.DataFrame:
    lines = [
        {"row": row, "seed": seed, "depth": depth, "paper_depth": TABLE_1[row].odn.depth, "tolerance_pct": 0.5}
        for row, found in depths.items()
        for seed, depth in enumerate(found)
    ]
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("depths", "verdict", "said"),
    [
        ({"mnist": [1, 2], "emnist": [2, 2], "fashion_mnist": [3, 4], "cifar10": [5, 6]}, "holds", "+1.00, p = 0.042"),
        ({"mnist": [8, 8], "emnist": [7, 7], "fashion_mnist": [5, 5], "cifar10": [1, 1]}, "does not hold", "-1.00"),
        ({"mnist": [1, 1], "emnist": [3, 3], "fashion_mnist": [2, 2], "cifar10": [5, 5]}, "open", "+0.67, p = 0.17"),
        ({"mnist": [1] * 9, "emnist": [2] * 9, "cifar10": [5] * 9}, "open", "+1.00, p = 0.17"),  # seeds are no datasets
        ({"mnist": [2], "emnist": [2], "cifar10": [2]}, "open", "no order, 3 datasets"),
    ],
)
def test_verdict_is_exact_over_datasets(depths, verdict, said):
    found, why = trend.verdict(needed(depths))
    assert (found, said in why) == (verdict, True), why


def test_searches_share_their_settings_whatever_the_architecture(tmp_path):
    """Own architectures and a common one of three rows; a search with a goal of its own is none of them."""
    every = trend.EVERY_DEPTH | {"train_images": 100}
    for row in ("mnist", "emnist", "cifar10"):
        pretend_run(tmp_path, "reduced", row=row, protocol="fast", **every)
        pretend_run(tmp_path, "reduced", row=row, protocol="fast", seed=1, **every | {"architecture": "resnet18"})
    pretend_run(tmp_path, "reduced", row="fashion_mnist", protocol="fast", train_images=100)
    found = trend.searches(comparison.load_runs(tmp_path, "reduced"))
    assert found.groupby("architectures")["row"].count().to_dict() == {trend.PAPERS: 5, "resnet18": 5}
    assert set(found["settings"]) == {"n100-target100.0-tol0.0"}
    lines = redraw.depths_by_dataset(tmp_path, "reduced")
    assert len(lines) == len(found) * len(trend.TOLERANCES_PCT)
    assert set(lines["not_comparable"]) == {"width 16, not 64, overridden: n100"}
    assert (tmp_path / "reduced" / "figures" / "depth_by_dataset-fast-n100-target100.0-tol0.0.png").exists()


def test_two_rows_are_no_trend():
    with pytest.raises(RecipeError, match=r"rows \['mnist', 'svhn'\] are fewer than 3"):
        trend.planned("smoke", ["mnist", "svhn"], [""], [0], {})


def test_a_row_with_the_common_architecture_is_searched_once():
    found = trend.planned("smoke", ["mnist", "svhn", "cifar10"], ["", trend.COMMON], [0, 1], {"target_pct": 50.0})
    assert len(found) == 2 * 5
    assert {recipe.goal_pct for recipe in found} == {100.0}
