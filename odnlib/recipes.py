"""What to train and how, as data: a `Recipe` is one run's every setting, built from four small tables.

`resolve` lays row, protocol, profile and the caller's overrides on top of one another and checks the outcome.
Sources: S = the paper's text, R = the authors' released code.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from odnlib.architectures import ARCHITECTURES
from odnlib.paper import TABLE_1

VARIANTS = ("odn", "full")
OWN = re.compile(r"own_[a-z0-9_]+_[0-9a-f]{8}")  # the row of somebody's own images (`own.row`)
EXAMPLE = "example_shapes"  # folder of own images that odnlib draws to try itself with


class RecipeError(ValueError):
    """Settings that cannot be run; one line per problem."""


def setting(default: Any, tag: str, low: float, high: float) -> Any:
    """A field that may be overridden: its abbreviation in a run's tag and its inclusive range."""
    return field(default=default, metadata={"tag": tag, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """Every setting of one run. The first five name it; an override of any other shows up in its tag."""

    row: str  # a key of paper.TABLE_1, or one of OWN
    variant: str  # odn: depth search; full: the whole network by the same rule
    profile: str  # a key of PROFILES
    protocol: str  # a key of PROTOCOLS
    seed: int = 0

    embedded: bool = setting(False, "embedded", 0, 1)  # stand-in images that need no download
    train_images: int | None = setting(None, "n", 1, 10**7)  # none: all of the training split
    validation_images: int | None = setting(None, "v", 1, 10**7)  # none: all of the validation split
    architecture: str = setting("resnet18", "", 0, 0)
    width: int = setting(64, "w", 8, 1024)  # 64: as many channels as the published network; 16: a quarter of them

    batch_size: int = setting(128, "batch", 2, 10**6)  # images (S)
    momentum: float = setting(0.9, "m", 0, 1)  # of SGD (S)
    weight_decay: float = setting(5e-4, "wd", 0, 1)  # (S)
    nesterov: bool = setting(False, "nesterov", 0, 1)  # momentum looks one step ahead
    bfloat16: bool = setting(False, "bf16", 0, 1)  # autocast: half the bytes, twice as fast where the device can
    drop_last: bool = setting(False, "droplast", 0, 1)  # leave the last, smaller training batch out (R)

    warmup_epochs: int = setting(3, "warm", 0, 10**4)  # all depths at once (R); 0: start from the initial weights
    warmup_rate: float = setting(0.001, "warmrate", 0, 10)  # start of a cosine down to 0 over the warm-up (R)

    rate: float = setting(0.01, "rate", 0, 10)  # learning rate of the first depth and of the full network
    increment_rate_factor: float = setting(0.5, "incr", 0, 10)  # times rate: every later depth's own (R)
    decay: float = setting(0.6, "decay", 0, 1)  # factor of the rate after `decay_every` epochs without improvement
    decay_every: int = setting(5, "every", 1, 10**4)  # epochs (S)
    patience: int = setting(23, "patience", 1, 10**4)  # epochs without improvement that mean convergence (S)
    one_cycle: bool = setting(False, "cycle", 0, 1)  # no plateau rule: the rate rises and falls once over a stage
    carry_weights: bool = setting(False, "prefix", 0, 1)  # a new depth goes on from the previous depth's weights
    first_epochs: int | None = setting(None, "e1", 0, 10**6)  # most epochs at the first depth; none: `depth_epochs`
    carry_best: bool = setting(False, "carry", 0, 1)  # a new depth must beat the previous depth's best accuracy
    search_decimals: int = setting(1, "sdec", 0, 6)  # of the validation accuracy in % while searching (R)
    finetune_decimals: int = setting(2, "fdec", 0, 6)  # likewise in fine-tuning and for the full network (R)

    target_pct: float = setting(99.5, "target", 0, 100)  # validation accuracy to reach (R)
    tolerance_pct: float = setting(0.5, "tol", 0, 100)  # ... within this many points (R)
    first_depth: int = setting(1, "first", 1, 1000)  # D_i of Algorithm 1
    last_depth: int = setting(8, "last", 1, 1000)  # D_f; unless overridden the architecture's largest
    depth_epochs: int | None = setting(None, "e", 0, 10**6)  # most epochs at one depth; none: until converged
    finetune_epochs: int | None = setting(None, "ft", 0, 10**6)  # most epochs of fine-tuning; none: until converged
    full_epochs: int | None = setting(None, "full", 0, 10**6)  # most epochs of the full network; none: until converged
    threads: int | None = setting(None, "threads", 1, 1024)  # of the CPU; none: all there are

    @property
    def goal_pct(self) -> float:
        """The validation accuracy, in %, at which the search ends."""
        return round(self.target_pct - self.tolerance_pct, 6)

    def most_epochs(self, stage: str, depth: int) -> int | None:
        """Limit of epochs of one stage (see `schedule.Stage.kind`); none: until converged."""
        if stage == "depth" and depth == self.first_depth and self.first_epochs is not None:
            return self.first_epochs
        return getattr(self, f"{stage}_epochs")

    @property
    def overridden(self) -> dict[str, Any]:
        """Every setting that differs from what (row, protocol, profile) say."""
        plain = _layers(self.row, self.variant, self.profile, self.protocol, self.seed, {})
        if self.architecture != plain.architecture:  # whose largest depth follows
            plain = dataclasses.replace(plain, last_depth=ARCHITECTURES[self.architecture].depth)
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) != getattr(plain, name)}

    @property
    def tag(self) -> str:
        """Abbreviates `overridden`, e.g. `w16-n5000`; empty where nothing is."""
        parts = []
        for name, value in self.overridden.items():
            short = SETTINGS[name].metadata["tag"]
            switch = {True: short, False: f"no{short}"}
            parts.append(switch[value] if isinstance(value, bool) else f"{short}{value}")
        return "-".join(parts)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        parts = [self.row, self.variant, self.protocol, self.tag, f"seed{self.seed}"]
        return "-".join(part for part in parts if part)


SETTINGS = {item.name: item for item in dataclasses.fields(Recipe) if item.metadata}

# Per row: what the released code sets. Everything else is the same for all (the defaults above).
ROWS: dict[str, dict[str, Any]] = {
    "mnist": {"target_pct": 99.5},
    "emnist": {"target_pct": 95.0},
    "fashion_mnist": {"target_pct": 94.5},
    "svhn": {"target_pct": 96.0, "warmup_rate": 0.01, "rate": 0.1, "drop_last": True},
    "cifar10": {"target_pct": 94.5, "warmup_epochs": 0, "increment_rate_factor": 1.0, "drop_last": True},
}

# Per protocol: which reading of the paper. `printed` has the text's numbers, and where the text is silent, `released`.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "released": {},
    "printed": {"rate": 0.1, "increment_rate_factor": 1.0, "decay": 0.4, "warmup_epochs": 3},
    "fast": {
        "one_cycle": True,
        "carry_weights": True,
        "nesterov": True,
        "batch_size": 32,
        "rate": 0.1,
        "increment_rate_factor": 1.0,
        "warmup_epochs": 0,
        "first_epochs": 16,
        "depth_epochs": 8,
        "finetune_epochs": 0,
        "full_epochs": 16,
    },
}

# Per profile: how much work. `reduced` shows a trend, `smoke` illustrates; neither is a row of Table I.
PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "embedded": True,
        "width": 8,
        "batch_size": 32,
        "threads": 1,
        "depth_epochs": 10,
        "finetune_epochs": 4,
        "full_epochs": 10,
    },
    "reduced": {"width": 16},
    "quick": {"depth_epochs": 6, "finetune_epochs": 3, "full_epochs": 4},
    "paper": {},
}

# `fast` has budgets of its own where a profile shortens the others: no fine-tuning, its cycle ends at a rate of 0.
FAST: dict[str, dict[str, Any]] = {
    "smoke": {"first_epochs": 6, "depth_epochs": 4, "finetune_epochs": 0, "full_epochs": 6},
    "quick": {"first_epochs": 6, "depth_epochs": 6, "finetune_epochs": 0, "full_epochs": 6},
}

# The embedded images are few and each row's have a difficulty of their own, so smoke has targets and rates of its own.
SMOKE: dict[str, dict[str, Any]] = {
    "mnist": {"target_pct": 92.0, "rate": 0.02},
    "emnist": {"target_pct": 50.0, "rate": 0.02, "depth_epochs": 8, "full_epochs": 8},
    "fashion_mnist": {"target_pct": 82.0, "rate": 0.02, "depth_epochs": 6, "full_epochs": 8},
    "svhn": {"target_pct": 44.0, "rate": 0.02, "depth_epochs": 5, "full_epochs": 6},
    "cifar10": {"target_pct": 48.0, "rate": 0.05, "depth_epochs": 5, "full_epochs": 6},
}


def usual_protocol(profile: str) -> str:
    """The protocol of a profile unless another is asked for."""
    return "fast" if profile == "quick" else "released"


def _layers(row: str, variant: str, profile: str, protocol: str, seed: int, overrides: dict[str, Any]) -> Recipe:
    smoke = SMOKE.get(row, {}) if profile == "smoke" else {}
    smoke = {name: value for name, value in smoke.items() if name != "rate" or protocol == "released"}
    table = {"architecture": TABLE_1[row].architecture, **ROWS[row]} if row in ROWS else {}
    # `quick` cuts short what tens of thousands of images need; with a thousand its few steps end at too great a depth.
    cut_short = row in ROWS or profile != "quick"
    table |= PROTOCOLS[protocol] | (PROFILES[profile] if cut_short else {})
    if row not in ROWS:
        table["embedded"] = row.startswith(f"own_{EXAMPLE}_")
    table.setdefault("architecture", "resnet18")
    table |= smoke | (FAST.get(profile, {}) if protocol == "fast" and cut_short else {}) | overrides
    table.setdefault("last_depth", ARCHITECTURES[table["architecture"]].depth)
    return Recipe(row, variant, profile, protocol, seed, **table)


def resolve(
    row: str, variant: str = "odn", profile: str = "smoke", protocol: str = "released", seed: int = 0, **overrides: Any
) -> Recipe:
    """The recipe of one run.

    Raises:
        RecipeError: with one line per problem, each naming the value and what is accepted.
    """
    names = {"row": (row, ROWS), "variant": (variant, VARIANTS), "profile": (profile, PROFILES)}
    names["protocol"] = (protocol, PROTOCOLS)
    problems = [
        f"{name} {value!r} does not exist: choose one of {', '.join(known)}"
        for name, (value, known) in names.items()
        if not isinstance(value, str) or not (value in known or (name == "row" and OWN.fullmatch(value)))
    ]
    if type(seed) is not int or not 0 <= seed < 2**31:
        problems.append(f"seed {seed!r} is not a whole number from 0 to {2**31 - 1}")
    problems += [problem for name, value in overrides.items() if (problem := _problem(name, value))]
    if isinstance(row, str) and OWN.fullmatch(row) and overrides.keys() & {"train_images", "validation_images"}:
        problems.append("own images are all used: for fewer of them take some out of the folder")
    if not problems:
        floats = {name for name, item in SETTINGS.items() if item.type == "float"}  # 90 names the same run as 90.0
        overrides = {name: float(value) if name in floats else value for name, value in overrides.items()}
        recipe = _layers(row, variant, profile, protocol, seed, overrides)
        problems = _contradictions(recipe)
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe


def _problem(name: str, value: Any) -> str | None:
    if name not in SETTINGS:
        return f"there is no parameter {name!r}: choose from {', '.join(SETTINGS)}"
    item = SETTINGS[name]
    if name == "architecture":
        known = isinstance(value, str) and value in ARCHITECTURES
        return None if known else f"architecture {value!r} does not exist: choose one of {', '.join(ARCHITECTURES)}"
    kind, _, none = item.type.partition(" | ")
    low, high = item.metadata["low"], item.metadata["high"]
    kinds = {"int": (int,), "float": (int, float), "bool": (bool,)}[kind]
    if (none and value is None) or (type(value) in kinds and low <= value <= high):
        return None
    wanted = "true or false" if kind == "bool" else f"a {'whole ' * (kind == 'int')}number from {low:g} to {high:g}"
    return f"{name} {value!r} is not {wanted}{' or none' * bool(none)}"


def _contradictions(recipe: Recipe) -> list[str]:
    largest = ARCHITECTURES[recipe.architecture].depth
    problems = [
        f"{name} {depth} does not exist: {recipe.architecture} has depths 1 to {largest}"
        for name, depth in {"first_depth": recipe.first_depth, "last_depth": recipe.last_depth}.items()
        if depth > largest
    ]
    if not problems and recipe.first_depth > recipe.last_depth:
        problems.append(f"first_depth {recipe.first_depth} is beyond last_depth {recipe.last_depth}")
    limits = ("full_epochs",) if recipe.variant == "full" else ("warmup_epochs", "depth_epochs", "finetune_epochs")
    if all(getattr(recipe, limit) == 0 for limit in limits):
        problems.append(f"{' = '.join(limits)} = 0 trains nothing: allow at least one epoch")
    if recipe.one_cycle:
        unlimited = [limit for limit in limits if getattr(recipe, limit) is None]
        problems += [f"one_cycle needs {limit}: a whole number, not none" for limit in unlimited]
    if recipe.nesterov and recipe.momentum == 0:
        problems.append("nesterov needs a momentum above 0")
    if recipe.tolerance_pct > recipe.target_pct:
        problems.append(f"tolerance_pct {recipe.tolerance_pct:g} is larger than target_pct {recipe.target_pct:g}")
    return problems
