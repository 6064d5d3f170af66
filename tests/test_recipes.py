"""Recipes: what the tables hold, and what is refused."""

import pytest

from odnlib.recipes import PROTOCOLS, ROWS, RecipeError, resolve


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("profile", ["reduced", "quick", "paper"])
@pytest.mark.parametrize("variant", ["odn", "full"])
def test_every_combination_resolves(row, protocol, profile, variant):
    recipe = resolve(row, variant, profile, protocol)
    assert recipe.tag == ""
    assert recipe.name == f"{row}-{variant}-{protocol}-seed0"


def test_released_and_printed_readings():
    released, printed = (resolve("mnist", profile="paper", protocol=protocol) for protocol in ("released", "printed"))
    assert (released.rate, released.increment_rate_factor, released.decay) == (0.01, 0.5, 0.6)
    assert (printed.rate, printed.increment_rate_factor, printed.decay) == (0.1, 1.0, 0.4)
    assert (released.goal_pct, released.patience, released.decay_every, released.batch_size) == (99.0, 23, 5, 128)


def test_tag_names_every_override():
    recipe = resolve("mnist", "odn", "reduced", train_images=5000, depth_epochs=None, warmup_epochs=0, carry_best=True)
    assert recipe.tag == "n5000-warm0-carry1"
    assert resolve("mnist", "odn", "smoke", depth_epochs=None).tag == "eNone"
    assert resolve("mnist", "odn", "paper", architecture="resnet34").tag == "resnet34"
    assert resolve("mnist", "odn", "paper", architecture="resnet34").last_depth == 16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"row": "imagenet"}, "row 'imagenet' does not exist: choose one of mnist, emnist"),
        ({"profile": "huge"}, "profile 'huge' does not exist: choose one of smoke, reduced, quick, paper"),
        ({"protocol": "both"}, "protocol 'both' does not exist: choose one of released, printed, fast"),
        ({"first_depth": 0}, "first_depth 0 is not a whole number from 1"),
        ({"last_depth": 9}, "last_depth 9 does not exist: resnet18 has depths 1 to 8"),
        ({"first_depth": 5, "last_depth": 4}, "first_depth 5 is beyond last_depth 4"),
        ({"target_pct": 101.0}, "target_pct 101.0 is not a number from 0 to 100"),
        ({"target_pct": 5, "tolerance_pct": 6}, "tolerance_pct 6 is larger than target_pct 5"),
        ({"warm_up": 3}, "there is no parameter 'warm_up': choose from embedded, train_images"),
        ({"width": "16"}, "width '16' is not a whole number from 1 to 1024"),
        ({"rate": float("nan")}, "rate nan is not a number from 0 to 10"),
        ({"variant": "full", "full_epochs": 0}, "full_epochs = 0 trains nothing: allow at least one epoch"),
        ({"protocol": "fast", "depth_epochs": None}, "one_cycle needs depth_epochs: a whole number, not none"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"seed": -1}, "seed -1 is not a whole number from 0"),
        ({"architecture": "vgg"}, "architecture 'vgg' does not exist: choose one of resnet18, resnet34, resnet50"),
    ],
)
def test_refused_with_one_clear_line(wrong, message):
    with pytest.raises(RecipeError) as refusal:
        resolve(**{"row": "mnist"} | wrong)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_all_problems_at_once():
    with pytest.raises(RecipeError) as refusal:
        resolve("mnist", width=0, momentum=2.0, nonsense=1)
    assert len(str(refusal.value).splitlines()) == 3


# Row: target, rate, factor after the first depth, warm-up epochs and rate, last batch dropped (the released code).
RELEASED = {
    "mnist": (99.5, 0.01, 0.5, 3, 0.001, False),
    "emnist": (95.0, 0.01, 0.5, 3, 0.001, False),
    "fashion_mnist": (94.5, 0.01, 0.5, 3, 0.001, False),
    "svhn": (96.0, 0.1, 0.5, 3, 0.01, True),
    "cifar10": (94.5, 0.01, 1.0, 0, 0.001, True),
}


@pytest.mark.parametrize("row", RELEASED)
def test_what_the_released_code_sets(row):
    recipe = resolve(row, profile="paper")
    names = ("target_pct", "rate", "increment_rate_factor", "warmup_epochs", "warmup_rate", "drop_last")
    assert tuple(getattr(recipe, name) for name in names) == RELEASED[row]
    common = (recipe.tolerance_pct, recipe.decay, recipe.decay_every, recipe.patience, recipe.batch_size)
    assert common == (0.5, 0.6, 5, 23, 128)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 5e-4)
