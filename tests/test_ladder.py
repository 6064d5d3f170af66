"""The ladder: its networks, where a climb stops, and that test images wait for the network that is chosen."""

import dataclasses
import itertools
from functools import partial

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odnlib import experiment
from odnlib.data import DATASETS
from odnlib.files import read_json
from odnlib.recipes import RecipeError
from studies import ladder
from tests.conftest import Killed, contents, killed_after, tiny

ROW = "own_tiny_01234567"
LADDER = ladder.plan_recipes(ROW, "quick", 0, [(8, 1), (8, 2), (11, 2)], depth_epochs=2, threads=1)


@pytest.mark.parametrize("row", ["mnist", "svhn"])
def test_every_network_has_about_twice_the_bytes_of_the_one_before(row):
    networks = ladder.list_networks(DATASETS[row])
    sizes = [ladder.count_network_bytes(network, DATASETS[row]) for network in networks]
    assert all(1.5 < larger / smaller < 3 for smaller, larger in itertools.pairwise(sizes))
    assert networks[2:4] == [(8, 3), (11, 3)]  # which leaves 4 of 28 or 32 pixels a side


@pytest.mark.parametrize(("side", "deepest"), [(8, 1), (16, 2), (27, 2), (28, 3), (32, 3), (64, 4), (224, 5)])
def test_an_image_is_halved_until_four_pixels_are_left(side, deepest):
    dataset = dataclasses.replace(DATASETS["mnist"], image_shape=(1, side, side))
    assert max(depth for _, depth in ladder.list_networks(dataset)) == deepest


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(15_000, 6_000_000))
def test_max_bytes_is_kept_and_used(max_bytes):
    svhn = DATASETS["svhn"]
    *_, (width, depth) = networks = ladder.list_networks(svhn, max_bytes)
    assert all(ladder.count_network_bytes(network, svhn) <= max_bytes for network in networks)
    assert networks == sorted(set(networks), key=lambda network: ladder.count_network_bytes(network, svhn))
    assert width == 64 or depth < 3 or ladder.count_network_bytes((width + 1, depth), svhn) > max_bytes


def test_fewer_bytes_than_any_network_has_are_refused():
    with pytest.raises(RecipeError, match=r"max_bytes 5,000: the smallest network here has 1\d,\d{3}: allow at least"):
        ladder.list_networks(DATASETS["svhn"], 5_000)


def climbed(accuracies_pct, images=10_000):
    """Rungs of a climb towards 90 %, by accuracies of (width, depth, seed); seeds not named have 50 %."""
    told = {(8, 1, 0): 60.0, (8, 2, 0): 80.0, (11, 2, 0): 95.0} | accuracies_pct
    of = lambda recipe: told.get((recipe.width, recipe.last_depth, recipe.seed), 50.0)  # noqa: E731
    return ladder.climb_ladder(LADDER, of, 90.0, images)


@pytest.mark.parametrize(
    ("accuracies_pct", "seeds"),
    [
        ({}, [1, 1, 1]),
        ({(8, 1, 0): 97.0}, [1]),
        ({(8, 2, 0): 90.1, (8, 2, 1): 89.8}, [1, 2, 1]),  # a lucky hit
        ({(8, 2, 0): 89.8, (8, 2, 1): 90.3}, [1, 2]),  # an unlucky miss
        ({(8, 2, 0): 90.0, (8, 2, 1): 90.0}, [1, 2]),
        ({(11, 2, 0): 85.0}, [1, 1, 1]),
    ],
)
def test_the_first_that_meets_the_goal_by_two_seeds_where_one_cannot_tell(accuracies_pct, seeds):
    rungs = climbed(accuracies_pct)
    assert [len(rung.recipes) for rung in rungs] == seeds
    assert [rung.recipes[0] for rung in rungs] == LADDER[: len(seeds)]


def test_with_fewer_images_more_rungs_get_a_second_seed_and_the_better_one_is_taken():
    rung = climbed({(8, 2, 1): 98.0, (11, 2, 1): 92.0}, images=30)[1]
    assert (rung.accuracy_pct, rung.best_recipe.seed) == (89.0, 1)
    assert [len(rung.recipes) for rung in climbed({}, images=30)] == [1, 2, 2]


def test_interval_of_an_accuracy():
    """It lies around the adjusted accuracy: for 144 of 152 right, Wilson's is 89.96 to 97.3."""
    assert ladder.interval_pct(90.0, 10_000) == pytest.approx((89.4, 90.57), abs=0.02)
    assert ladder.interval_pct(100 * 144 / 152, 152) == pytest.approx((89.75, 97.43), abs=0.02)
    assert 80 < ladder.interval_pct(100.0, 20)[0] < ladder.interval_pct(100.0, 20)[1] == 100


def test_all_rungs_are_trained_alike():
    several = {"width", "first_depth", "last_depth"}
    assert len({tuple((k, v) for k, v in vars(rung).items() if k not in several) for rung in LADDER}) == 1
    assert {rung.rule for rung in LADDER} == {"equal"}


def trained(results_dir, data, recipe, listeners=()):
    folder = experiment.run(recipe, lambda: data, results_dir, listeners, tested=False)
    return read_json(folder / "result.json")["val_acc_pct"]


@pytest.mark.slow
def test_a_climb_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    data, folders = tiny(), []
    for name, listeners in {"whole": (), "killed": [killed_after(1)]}.items():
        climb = partial(ladder.climb_ladder, LADDER, goal_pct=100.0, images=1000)
        if listeners:
            with pytest.raises(Killed):
                climb(partial(trained, tmp_path / name, data, listeners=listeners))
        rungs = climb(partial(trained, tmp_path / name, data))
        folders.append([experiment.folder_of_run(recipe, tmp_path / name) for rung in rungs for recipe in rung.recipes])
    assert [contents(folder) for folder in folders[0]] == [contents(folder) for folder in folders[1]]


def test_the_test_images_wait_for_the_chosen_network(tmp_path, monkeypatch):
    data = tiny()
    folder = experiment.run(LADDER[1], lambda: data, tmp_path, tested=False)
    result = read_json(folder / "result.json")
    assert (result["test_acc_pct"], result["test_images"]) == (None, 0)
    whole = experiment.run(LADDER[1], lambda: data, tmp_path / "tested")
    assert ladder.measure_test_accuracy_once(folder, data.test) == read_json(whole / "result.json")["test_acc_pct"]
    assert contents(folder) == contents(whole)
    monkeypatch.setattr(ladder.metrics, "evaluate", None)  # not once more
    assert ladder.measure_test_accuracy_once(folder, data.test) == read_json(folder / "result.json")["test_acc_pct"]


def test_settings_that_no_rung_can_have_are_refused():
    with pytest.raises(RecipeError, match="batch_size 0"):
        ladder.plan_recipes(ROW, "quick", 0, [(8, 1)], batch_size=0)


def test_the_last_epoch_counts_and_not_the_best(tmp_path):
    """Of these epochs the first is better on validation than the last."""
    (recipe,) = ladder.plan_recipes(ROW, "quick", 6, [(8, 1)], depth_epochs=4, threads=1)
    folder = experiment.run(recipe, tiny, tmp_path, tested=False)
    accuracies_pct = pd.read_csv(folder / "epochs.csv")["val_acc_pct"]
    assert accuracies_pct.iloc[-1] < accuracies_pct.max()
    assert read_json(folder / "result.json")["val_acc_pct"] == accuracies_pct.iloc[-1]


@pytest.mark.slow
def test_what_is_offered_and_how_long_it_will_take(tmp_path):
    data = tiny()
    assert ladder.estimate_minutes(LADDER, data).is_monotonic_increasing
    tried = ladder.climb_ladder(LADDER[:2], partial(trained, tmp_path, data), 100.0, 1000)
    offered = ladder.tabulate_tried_networks(tried, tried[1], tmp_path, data.validation, 30)
    assert offered["chosen"].tolist() == [False, True]
    assert offered["judged_pct"].tolist() == [rung.accuracy_pct for rung in tried]
    assert (offered[["size_kb", "latency_ms", "low"]] > 0).all(axis=None)
    labels = (
        ladder.draw_tried_networks(offered, 90.0, {"guessing": 33.0, "logistic regression": 50.0})
        .axes[0]
        .get_legend_handles_labels()
    )
    assert labels[1] == ["chosen", "your 90 %", "guessing", "logistic regression", "networks"]
