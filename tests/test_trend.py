"""Which depth a dataset needs, and whether it rises with the paper's: by hand."""

import pandas as pd
import pytest

from odnlib.paper import TABLE_1
from odnlib.recipes import RecipeError
from studies import common, trend
from tests.pretend import pretend_run


def test_depth_needed_is_the_smallest_within_the_tolerance():
    depths = pd.DataFrame({"depth": [1, 2, 3, 4, 5], "val_acc_pct": [90.0, 94.6, 95.0, 94.4, None]})
    assert [trend.find_depth_needed(depths, tolerance) for tolerance in (0.0, 0.4, 0.5, 5.0)] == [3, 2, 2, 1]


def needed(depths: dict[str, list[int]], **same: str) -> pd.DataFrame:
    lines = [
        {"row": row, "seed": seed, "depth": depth, "paper_depth": TABLE_1[row].odn.depth, "tolerance_pct": 0.5}
        for row, of_row in depths.items() for seed, depth in enumerate(of_row)
    ]  # fmt: skip
    study = {"profile": "paper", "rule": "equal", "settings": "", "architectures": "resnet18", "not_comparable": ""}
    return pd.DataFrame(lines).assign(**study | same)


IN_ORDER = {"mnist": [1, 2], "emnist": [2, 2], "fashion_mnist": [3, 4], "cifar10": [5, 6]}
REVERSED = {"mnist": [8, 8], "emnist": [7, 7], "fashion_mnist": [5, 5], "cifar10": [1, 1]}


@pytest.mark.parametrize(
    ("depths", "verdict", "reason"),
    [
        (IN_ORDER, "holds", "+1.00, p = 0.042"),
        (REVERSED, "does not hold", "-1.00"),
        ({"mnist": [1, 1], "emnist": [3, 3], "fashion_mnist": [2, 2], "cifar10": [5, 5]}, "open", "+0.67, p = 0.17"),
        ({"mnist": [1] * 9, "emnist": [2] * 9, "cifar10": [5] * 9}, "open", "+1.00, p = 0.17"),  # seeds are no datasets
        ({"mnist": [2], "emnist": [2], "cifar10": [2]}, "open", "no order, 3 datasets"),
    ],
)
def test_verdict_is_exact_over_datasets(depths, verdict, reason):
    judged, why = trend.judge_claim(needed(depths))
    assert (judged, reason in why) == (verdict, True), why


def test_one_architecture_for_all_decides_and_a_rule_of_today_comes_first():
    papers, alike = needed(REVERSED, architectures=trend.PAPER_ARCHITECTURES), needed(IN_ORDER)
    of_fast, at_width_16 = needed(REVERSED, rule="fast"), needed(IN_ORDER, not_comparable="width 16, not 64")
    assert trend.judge_claim(papers)[0] == "does not hold"
    assert trend.judge_claim(pd.concat([papers, alike]))[0] == "holds"
    assert trend.judge_claim(pd.concat([of_fast, of_fast, alike]))[0] == "holds"
    assert trend.judge_claim(at_width_16)[0] == "holds at reduced scale"


def test_searches_share_their_settings_whatever_the_architecture(tmp_path):
    """Own architectures and a common one of three rows, by two rules; a search with a goal of its own is none of them,
    and neither is one by another training version.
    """
    same = {"profile": "reduced", "rule": "equal", "train_images": 100, "threads": 1}
    same |= {"depth_epochs": 8}  # usual of all but MNIST
    every = same | common.SETTINGS_WITHOUT_GOAL
    for row in ("mnist", "emnist", "cifar10"):
        for other in ({}, {"rule": "fast"}, {"seed": 1, "architecture": "resnet18"}):
            pretend_run(tmp_path, row, **every | other)
    pretend_run(tmp_path, "fashion_mnist", **same)
    pretend_run(tmp_path, "svhn", training_version=2, **every)
    pretend_run(tmp_path, "svhn", **every | {"depth_epochs": 9})
    common.write_study("depth_by_dataset", trend, tmp_path, "reduced")
    lines = pd.read_csv(tmp_path / "reduced" / "depth_by_dataset.csv")
    searches = lines[lines["tolerance_pct"] == 0.5].groupby(["rule", "architectures"])["row"].count()
    assert searches.to_dict() == {
        ("equal", trend.PAPER_ARCHITECTURES): 5,
        ("equal", "resnet18"): 5,
        ("fast", trend.PAPER_ARCHITECTURES): 3,
    }
    assert set(lines["settings"]) == {"train images 100, threads 1, depth epochs 8"}
    why = "width 16, not 64, overridden: train images 100"
    assert set(lines["not_comparable"]) == {why, f"{why}, depth epochs 8"}  # MNIST's usual number is another
    figures = {file.name for file in tmp_path.glob("reduced/figures/*")}
    named = "depth_by_dataset-{}-train_images_100_threads_1_depth_epochs_8.png"
    assert figures == {named.format(rule) for rule in ("equal", "fast")}


def test_a_folder_of_own_images_is_a_dataset_more_and_one_called_like_a_row_has_its_place(tmp_path):
    same = {"profile": "reduced", "rule": "equal", "architecture": "resnet18", "depth_epochs": 5}
    same |= common.SETTINGS_WITHOUT_GOAL
    for row in ("mnist", "emnist", "fashion_mnist"):
        pretend_run(tmp_path, row, train_images=600, validation_images=300, **same)
    for row in ("own_svhn_0123abcd", "own_my_cats_0123abcd"):
        pretend_run(tmp_path, row, **same)
    pretend_run(tmp_path, "own_other_0123abcd", **same | {"depth_epochs": 6})  # trained otherwise
    common.write_study("depth_by_dataset", trend, tmp_path, "reduced")
    lines = trend.read_results(tmp_path, "reduced").query("tolerance_pct == 0.5")
    assert lines["paper_depth"].fillna(0).tolist() == [2, 3, 5, 6, 0]
    assert set(lines["settings"]) == {"train images 600, validation images 300, depth epochs 5"}
    verdict, why = trend.judge_claim(lines)
    assert (verdict, "SVHN (own images) 2.0" in why, "cats" in why) == ("open at reduced scale", True, False)
    planned = trend.plan_recipes(
        "reduced", ["mnist", "emnist", "own_svhn_0123abcd"], ["resnet18"], [0], {"train_images": 600}
    )
    assert [recipe.train_images for recipe in planned] == [600, 600, None]


@pytest.mark.parametrize(
    ("at_depth_1", "verdict"),
    [((98.3, 98.4, 98.2), "holds"), ((98.0, 98.1, 97.9), "open"), ((90.0, 90.5, 89.5), "does not hold")],
)
def test_a_depth_is_reused_at_no_loss_or_at_one(tmp_path, at_depth_1, verdict):
    """EMNIST needs 1 block: what does MNIST, which may need 2, have with 1?"""
    same = {"profile": "reduced", "rule": "equal", "architecture": "resnet18", "depth_epochs": 5}
    same |= common.SETTINGS_WITHOUT_GOAL
    for seed, accuracy in enumerate(at_depth_1):
        for row, one in (("mnist", accuracy), ("emnist", 99.0), ("fashion_mnist", 99.0)):
            depths = pd.DataFrame({"depth": [1, 2], "size_mb": 1.0, "val_acc_pct": [one, 98.6 + seed / 20]})
            pretend_run(tmp_path, row, seed=seed, depths=depths, **same)
    results = trend.read_results(tmp_path, "reduced")
    judged, why = trend.judge_claim(results, "reuse")
    assert judged == f"{verdict} at reduced scale", why
    assert why.count("n = 3") == 3
    assert trend.judge_claim(results[results["seed"] < 2], "reuse")[0] == "not measured"


def test_three_rows_are_a_trend_and_one_with_the_common_architecture_is_searched_once():
    with pytest.raises(RecipeError, match=r"rows \['mnist', 'svhn'\] are fewer than 3"):
        trend.plan_recipes("smoke", ["mnist", "svhn"], [""], [0], {})
    planned = trend.plan_recipes("smoke", ["mnist", "svhn", "cifar10"], ["", "resnet18"], [0, 1], {"target_pct": 50.0})
    assert len(planned) == 2 * 5
    assert {(recipe.goal_pct, recipe.rule) for recipe in planned} == {(100.0, "equal")}
