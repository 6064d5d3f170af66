"""Default settings by dataset (row of Table I), training rule and profile, as data; later ones override earlier."""

import math
import re
from typing import Any

from odnlib.paper import TABLE_1

OWN = re.compile(r"own_[a-z0-9_]+_[0-9a-f]{8}")  # the row of somebody's own images
EXAMPLE = "example_shapes"  # own images that odnlib draws, to try itself with
Settings = dict[str, Any]

# What the released code sets for each row. Everything else is the same for all.
ROWS: dict[str, Settings] = {
    "mnist": {"target_pct": 99.5},
    "emnist": {"target_pct": 95.0},
    "fashion_mnist": {"target_pct": 94.5},
    "svhn": {"target_pct": 96.0, "warmup_rate": 0.01, "rate": 0.1, "drop_last": True},
    "cifar10": {"target_pct": 94.5, "warmup_epochs": 0, "increment_rate_factor": 1.0, "drop_last": True},
}

# How one trains. `released`: what the authors' code does, where the defaults come from. `printed`: the numbers of the
# paper's text, and where it is silent those of `released`. `equal` (ours): every depth alike, one rise and fall of the
# rate from the initial weights, for as many epochs as EPOCHS says, the whole network too.
RULES: dict[str, Settings] = {
    "released": {},
    "printed": {"rate": 0.1, "increment_rate_factor": 1.0, "decay": 0.4, "warmup_epochs": 3},
    "equal": {"rate": 0.1, "increment_rate_factor": 1.0, "batch_size": 32, "nesterov": True, "warmup_epochs": 0,
              "finetune_epochs": 0},
}  # fmt: skip
EPOCHS = {"mnist": 12, "emnist": 8, "fashion_mnist": 8, "svhn": 8, "cifar10": 8}
OWN_EPOCHS, OWN_STEPS = 16, 1000  # for somebody's own images; the least, of epochs and of steps
OWN_SETTINGS: Settings = {"architecture": "chain", "tolerance_pct": 0.0}

# How much work. `smoke` illustrates, `reduced` shows a trend; neither is evidence for a row of Table I.
PROFILES: dict[str, Settings] = {
    "smoke": {"embedded": True, "width": 8, "batch_size": 16, "threads": 1},
    "reduced": {"width": 16},
    "quick": {},
    "paper": {},
}
LIMITS: dict[str, tuple[Settings, Settings]] = {  # profile: limits of epochs by the plateau rule, and by `equal`
    "smoke": ({"depth_epochs": 8, "finetune_epochs": 2, "full_epochs": 8}, {"depth_epochs": 4, "full_epochs": 4}),
    "quick": ({"depth_epochs": 6, "finetune_epochs": 3, "full_epochs": 4}, {}),
}

SMOKE_TARGET_PCT = 90.0  # of all rows' stand-ins
SMOKE_RATES = {"cifar10": 0.02}  # by rule `released`, where 0.05 is too much: the narrow ResNet-50 does not learn then


def own_epochs(images: int) -> int:
    """Return for how many epochs to train with so few or many own images: it is steps that few images lack."""
    return max(OWN_EPOCHS, math.ceil(OWN_STEPS * RULES["equal"]["batch_size"] / images))


def usual_rule(profile: str) -> str:
    """Return the training rule that a profile uses by default."""
    return "equal" if profile == "quick" else "released"


def usual(row: str, profile: str, rule: str) -> Settings:
    """Return the settings in which dataset, profile and rule differ from `Recipe`'s defaults, as a dict."""
    settings: Settings = {"architecture": TABLE_1[row].architecture} if row in TABLE_1 else dict(OWN_SETTINGS)
    settings |= ROWS.get(row, {}) | RULES.get(rule, {}) | PROFILES.get(profile, {})
    if rule == "equal":
        settings["depth_epochs"] = settings["full_epochs"] = EPOCHS.get(row, OWN_EPOCHS)
    settings |= LIMITS.get(profile, ({}, {}))[rule == "equal"]
    if profile == "smoke" and row in TABLE_1:
        settings |= {"target_pct": SMOKE_TARGET_PCT}
        settings |= {"rate": SMOKE_RATES.get(row, 0.05)} if rule == "released" else {}
    if row not in TABLE_1:
        settings["embedded"] = row.startswith(f"own_{EXAMPLE}_")  # which `own.row` calls drawn images alone
    return settings
