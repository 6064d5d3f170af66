"""Default settings by dataset (row of Table I), training rule and profile, as data; later ones override earlier."""

import math
import re
from typing import Any

from odnlib.paper import TABLE_1

OWN_ROW_PATTERN = re.compile(r"own_[a-z0-9_]+_[0-9a-f]{8}")  # `row` of a recipe for somebody's own images
EXAMPLE_NAME = "example_shapes"  # of drawn images, in place of somebody's own
Settings = dict[str, Any]  # of a recipe, by name

# What the released code sets for each row. Everything else is the same for all.
SETTINGS_OF_DATASET: dict[str, Settings] = {
    "mnist": {"target_pct": 99.5},
    "emnist": {"target_pct": 95.0},
    "fashion_mnist": {"target_pct": 94.5},
    "svhn": {"target_pct": 96.0, "warmup_rate": 0.01, "rate": 0.1, "drop_last": True},
    "cifar10": {"target_pct": 94.5, "warmup_epochs": 0, "increment_rate_factor": 1.0, "drop_last": True},
}

# How one trains. `released`: what the authors' code does, where the defaults come from. `printed`: the numbers of the
# paper's text, and where it is silent those of `released`. `equal` (ours): every depth alike, one rise and fall of the
# rate from the initial weights, for as many epochs as EPOCHS_OF_DATASET says, the whole network too.
SETTINGS_OF_RULE: dict[str, Settings] = {
    "released": {},
    "printed": {"rate": 0.1, "increment_rate_factor": 1.0, "decay": 0.4, "warmup_epochs": 3},
    "equal": {"rate": 0.1, "increment_rate_factor": 1.0, "batch_size": 32, "nesterov": True, "warmup_epochs": 0,
              "finetune_epochs": 0},
}  # fmt: skip
EPOCHS_OF_DATASET = {"mnist": 12, "emnist": 8, "fashion_mnist": 8, "svhn": 8, "cifar10": 8}
MINIMUM_OWN_EPOCHS, MINIMUM_OWN_STEPS = 16, 2000  # of training with somebody's own images, by rule `equal`
SETTINGS_OF_OWN_IMAGES: Settings = {"architecture": "chain", "tolerance_pct": 0.0}

# How much work. `smoke` illustrates, `reduced` shows a trend; neither is evidence for a row of Table I.
SETTINGS_OF_PROFILE: dict[str, Settings] = {
    "smoke": {"embedded": True, "width": 8, "batch_size": 16, "threads": 1},
    "reduced": {"width": 16},
    "quick": {},
    "paper": {},
}
EPOCH_LIMITS_OF_PROFILE: dict[str, tuple[Settings, Settings]] = {  # by rules `released` and `printed`, and by `equal`
    "smoke": ({"depth_epochs": 8, "finetune_epochs": 2, "full_epochs": 8}, {"depth_epochs": 4, "full_epochs": 4}),
    "quick": ({"depth_epochs": 6, "finetune_epochs": 3, "full_epochs": 4}, {}),
}

SMOKE_TARGET_PCT = 90.0  # of all rows' stand-ins
SMOKE_RATE = 0.05  # by rule `released`, where CIFAR-10's narrow ResNet-50 learns at a lower one only
SMOKE_SETTINGS_OF_DATASET: dict[str, Settings] = {  # networks shallower than `first_depth` see too little
    "emnist": {"first_depth": 5, "full_epochs": 12}, "fashion_mnist": {"first_depth": 3}, "svhn": {"first_depth": 4},
    "cifar10": {"rate": 0.01, "first_depth": 8, "full_epochs": 12},
}  # fmt: skip


def epochs_for_own_images(images: int) -> int:
    """Return for how many epochs to train with this many images of somebody's own: the fewer, the more."""
    return max(MINIMUM_OWN_EPOCHS, math.ceil(MINIMUM_OWN_STEPS * SETTINGS_OF_RULE["equal"]["batch_size"] / images))


def default_rule(profile: str) -> str:
    """Return the training rule of a profile (smoke, reduced, quick, paper) where none is named: equal or released."""
    return "equal" if profile == "quick" else "released"


def preset_settings(row: str, profile: str, rule: str) -> Settings:
    """Return a dict of the settings, by name, that dataset, profile and rule give in place of `Recipe`'s defaults."""
    settings: Settings = {"architecture": TABLE_1[row].architecture} if row in TABLE_1 else dict(SETTINGS_OF_OWN_IMAGES)
    settings |= SETTINGS_OF_DATASET.get(row, {}) | SETTINGS_OF_RULE.get(rule, {}) | SETTINGS_OF_PROFILE.get(profile, {})
    if rule == "equal":
        settings["depth_epochs"] = settings["full_epochs"] = EPOCHS_OF_DATASET.get(row, MINIMUM_OWN_EPOCHS)
    settings |= EPOCH_LIMITS_OF_PROFILE.get(profile, ({}, {}))[rule == "equal"]
    if profile == "smoke" and row in TABLE_1:
        settings |= {"target_pct": SMOKE_TARGET_PCT, "crop_padding": 0, "flip": False}  # classes are directions
        if rule == "released":
            settings |= {"rate": SMOKE_RATE} | SMOKE_SETTINGS_OF_DATASET.get(row, {})
    if row not in TABLE_1:
        settings["embedded"] = row.startswith(f"own_{EXAMPLE_NAME}_")  # which only drawn images are called
    return settings
