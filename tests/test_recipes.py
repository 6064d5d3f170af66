"""Recipes: what the tables hold, and what is refused."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odnlib.__main__ import main
from odnlib.experiment import folder_of_run
from odnlib.presets import SETTINGS_OF_DATASET, SETTINGS_OF_PROFILE
from odnlib.recipes import CHOICES, SETTING_FIELDS, RecipeError, resolve


def test_every_combination_resolves():
    for row, variant, profile, rule in itertools.product(*CHOICES.values()):
        recipe = resolve(row, variant, profile, rule)
        assert (recipe.label, recipe.name) == ("", f"{row}-{variant}-{rule}-seed0")


def test_what_the_text_says_otherwise():
    printed = resolve("mnist", profile="paper", rule="printed")
    assert (printed.rate, printed.increment_rate_factor, printed.decay) == (0.1, 1.0, 0.4)


def test_a_profile_means_one_rule():
    usual = {profile: resolve("mnist", profile=profile).rule for profile in SETTINGS_OF_PROFILE}
    assert usual == {"smoke": "released", "reduced": "released", "quick": "equal", "paper": "released"}


def test_equal_trains_depths_and_whole_network_alike():
    assert [resolve(row, profile="quick").depth_epochs for row in SETTINGS_OF_DATASET] == [12, 8, 8, 8, 8]
    recipe = resolve("mnist", "full", "quick")
    assert (recipe.full_epochs, recipe.batch_size, recipe.rate, recipe.nesterov) == (12, 32, 0.1, True)


def test_a_name_tells_every_override():
    recipe = resolve("mnist", "odn", "reduced", train_images=5000, depth_epochs=None, warmup_epochs=0, carry_best=True)
    assert recipe.label == "train images 5000, warmup epochs 0, carry best"
    assert recipe.name == "mnist-odn-released-train_images_5000-warmup_epochs_0-carry_best-seed0"
    assert resolve("mnist", "odn", "smoke", depth_epochs=None).label == "depth epochs none"
    deeper = resolve("mnist", "odn", "paper", architecture="resnet34")
    assert (deeper.label, deeper.last_depth) == ("architecture resnet34", 16)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional={
    "depth_epochs": st.none() | st.integers(0, 30), "full_epochs": st.none() | st.integers(1, 30),
    "warmup_epochs": st.integers(1, 3), "width": st.integers(8, 64), "rate": st.sampled_from([1e-5, 0.1, 1.0]),
    "momentum": st.sampled_from([0.5, 1e-5]), "bfloat16": st.booleans(), "nesterov": st.booleans(),
    "train_images": st.integers(1, 12), "threads": st.integers(1, 2),
}), min_size=2, max_size=2))  # fmt: skip
def test_two_recipes_never_share_a_folder(overrides):
    one, other = (resolve("mnist", "odn", "paper", **chosen) for chosen in overrides)
    assert (one.name == other.name) == (one == other)


NO_WARMUP = {"warmup_epochs": 0, "finetune_epochs": 0}  # a search that comes to its last depth has that fine-tuned only
NOTHING_TO_TRAIN = [
    (NO_WARMUP | {"last_depth": 1}, "warmup_epochs = finetune_epochs = 0 leaves depth 1 untrained"),
    (NO_WARMUP | {"last_depth": 5, "depth_epochs": 3}, "warmup_epochs = finetune_epochs = 0 leaves depth 5 untrained"),
    (NO_WARMUP | {"row": "cifar10"}, "warmup_epochs = finetune_epochs = 0 leaves depth 16 untrained: allow at least"),
    ({"row": "cifar10", "finetune_epochs": 0}, "warmup_epochs = finetune_epochs = 0 leaves depth 16 untrained"),
    (NO_WARMUP | {"first_depth": 8}, "warmup_epochs = finetune_epochs = 0 leaves depth 8 untrained"),
    ({"rule": "equal", "depth_epochs": 0}, "depth_epochs = 0 leaves depth 8 untrained: allow at least one epoch"),
    ({"rule": "equal", "depth_epochs": 0, "last_depth": 1}, "depth_epochs = 0 leaves depth 1 untrained"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"profile": "huge"}, "profile 'huge' does not exist: choose one of smoke, reduced, quick, paper"),
        ({"rule": "both"}, "rule 'both' does not exist: choose one of released, printed, equal"),
        ({"first_depth": 0}, "first_depth 0 is not a whole number from 1"),
        ({"last_depth": 9}, "last_depth 9 does not exist: resnet18 has depths 1 to 8"),
        ({"first_depth": 5, "last_depth": 4}, "first_depth 5 is beyond last_depth 4"),
        ({"target_pct": 5, "tolerance_pct": 6}, "tolerance_pct 6 is larger than target_pct 5"),
        ({"warm_up": 3}, "there is no parameter 'warm_up': did you mean 'warmup_"),
        ({"target_pcnt": 3}, "there is no parameter 'target_pcnt': did you mean 'target_pct'? choose from"),
        ({"width": "16"}, "width '16' is not a whole number from 8 to 1024"),
        ({"rate": float("nan")}, "rate nan is not a number from 0 to 10"),
        ({"variant": "full", "full_epochs": 0}, "full_epochs = 0 leaves the network untrained: allow at least one"),
        *NOTHING_TO_TRAIN,
        ({"rule": "equal", "depth_epochs": None}, "rule equal needs depth_epochs and full_epochs: whole numbers"),
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
    assert recipe.goal_pct == recipe.target_pct - 0.5
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 5e-4)


def beyond(item):
    """Values that a setting must refuse: outside its range, of another type, not a number."""
    low, high = item.metadata["low"], item.metadata["high"]
    wrong = st.text(max_size=5) | st.lists(st.integers(), max_size=2) | st.just(float("nan")) | st.just(b"5")
    if item.name != "architecture" and not item.type.startswith("bool"):
        wrong |= st.integers(max_value=int(low) - 1) | st.integers(min_value=int(high) + 1) | st.booleans()
        wrong |= st.just(str(item.default)) | st.just(float("inf"))
    return wrong | st.floats(low, high) if item.type.startswith("int") else wrong


NAMES = st.text("abcdefghijklmnopqrstuvwxyz_/.", min_size=1, max_size=12)
WRONG_NAME = {x: NAMES.filter(lambda text, known=known: text and text not in known) for x, known in CHOICES.items()}
BAD = st.one_of(
    *(st.tuples(st.just(item.name), beyond(item)) for item in SETTING_FIELDS.values()),
    *(st.tuples(st.just(name), wrong) for name, wrong in WRONG_NAME.items()),
    st.tuples(NAMES.filter(lambda text: text not in (*SETTING_FIELDS, *WRONG_NAME, "seed")), st.integers()),
    st.tuples(st.just("seed"), st.one_of(st.integers(max_value=-1), st.text(), st.floats(), st.booleans())),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(SETTINGS_OF_DATASET)), st.lists(BAD, min_size=1, max_size=4))
def test_generated_bad_parameters_are_all_refused(row, bad):
    """One line for each of them, and no other exception."""
    with pytest.raises(RecipeError) as refusal:
        resolve(**{"row": row} | dict(bad))
    lines = str(refusal.value).splitlines()
    assert len(lines) == len(dict(bad))
    for name, _ in bad:
        assert any(repr(name)[1:-1] in line for line in lines), (name, lines)


@settings(max_examples=30, deadline=None)
@given(bad=st.lists(BAD, min_size=1, max_size=3))
def test_the_command_line_refuses_them_before_it_does_anything(bad, tmp_path_factory):
    place = tmp_path_factory.getbasetemp() / "untouched"
    options = [f"--set={name}={str(value).strip() or 'x'}" for name, value in bad if name not in (*WRONG_NAME, "seed")]
    options += [f"--{name}={value}" for name, value in bad if name in ("profile", "rule")]
    options += ["--row=imagenet"] if not options else ["--row=mnist", "--set=nonsense=1"]
    assert main(["run", f"--results-dir={place}", *options]) == 2
    assert not place.exists()


def test_no_parameter_leads_out_of_the_results_folder(tmp_path):
    for row in ("..", "../mnist", "/etc", "mnist/../.."):
        with pytest.raises(RecipeError):
            resolve(row)
    for row in SETTINGS_OF_DATASET:
        recipe = resolve(row, architecture="resnet50", rate=1e-9)
        assert folder_of_run(recipe, tmp_path).resolve().parent == tmp_path / "smoke" / "runs"
