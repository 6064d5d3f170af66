"""What to train and how: a `Recipe` holds all settings of one training run.

`resolve` applies overrides to the settings in `presets` and checks the outcome. Sources of the defaults: S = the
paper's text, R = the authors' released code.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from odnlib import presets
from odnlib.architectures import ARCHITECTURES
from odnlib.files import read_json
from odnlib.presets import OWN_ROW_PATTERN, SETTINGS_OF_DATASET, SETTINGS_OF_PROFILE, SETTINGS_OF_RULE

VARIANTS = ("odn", "full")  # optimally deep network (search for the depth), whole network
CHOICES = {"row": SETTINGS_OF_DATASET, "variant": VARIANTS, "profile": SETTINGS_OF_PROFILE, "rule": SETTINGS_OF_RULE}
MAXIMUM_LABEL_LENGTH = 120  # characters, in a folder's name


class RecipeError(ValueError):
    """Raised for invalid settings; the message has a line for each problem, with the value and what is allowed."""


def declare_setting(default: Any, low: float, high: float) -> Any:
    """Return a dataclass field for a setting that may be overridden: its default, lowest and highest value."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """Holds all settings of one training run. The first five and the overridden others make up its name."""

    row: str  # the dataset: a key of TABLE_1, or of somebody's own images
    variant: str  # odn: search for the depth; full: the whole network by the same rule
    profile: str  # how much work: smoke, reduced, quick or paper
    rule: str  # how to train: released, printed or equal
    seed: int = 0

    embedded: bool = declare_setting(False, 0, 1)  # stand-in images that need no download
    train_images: int | None = declare_setting(None, 1, 10**7)  # None: all of the training split
    validation_images: int | None = declare_setting(None, 1, 10**7)  # None: all of the validation split
    architecture: str = declare_setting("resnet18", 0, 0)
    width: int = declare_setting(64, 8, 1024)  # channels of the first stage; 64 as published, 16: all a quarter

    batch_size: int = declare_setting(128, 2, 10**6)  # images (S)
    momentum: float = declare_setting(0.9, 0, 1)  # of SGD (S)
    weight_decay: float = declare_setting(5e-4, 0, 1)  # (S)
    nesterov: bool = declare_setting(False, 0, 1)
    bfloat16: bool = declare_setting(False, 0, 1)  # autocast: half the bytes, twice as fast where the device can
    crop_padding: int | None = declare_setting(None, 0, 16)  # pixels, for random crops in training; None: dataset's
    flip: bool | None = declare_setting(None, 0, 1)  # half of the training images, left and right; None: dataset's
    drop_last: bool = declare_setting(False, 0, 1)  # leave the last, smaller training batch out (R)

    warmup_epochs: int = declare_setting(3, 0, 10**4)  # all depths at once (R); 0: start from the initial weights
    warmup_rate: float = declare_setting(0.001, 0, 10)  # start of a cosine down to 0 over the warm-up (R)

    rate: float = declare_setting(0.01, 0, 10)  # learning rate of the first depth and of the full network
    increment_rate_factor: float = declare_setting(0.5, 0, 10)  # times rate: every later depth's own (R)
    decay: float = declare_setting(0.6, 0, 1)  # factor of the rate after `decay_every` epochs without improvement
    decay_every: int = declare_setting(5, 1, 10**4)  # epochs (S)
    patience: int = declare_setting(23, 1, 10**4)  # epochs without improvement that mean convergence (S)
    carry_best: bool = declare_setting(False, 0, 1)  # a new depth must beat the previous depth's best accuracy
    keep_last: bool = declare_setting(False, 0, 1)  # a depth's last weights and accuracy, not those of its best epoch
    search_decimals: int = declare_setting(1, 0, 6)  # of the validation accuracy in % while searching (R)
    finetune_decimals: int = declare_setting(2, 0, 6)  # likewise in fine-tuning and for the full network (R)

    target_pct: float = declare_setting(99.5, 0, 100)  # validation accuracy to reach (R)
    tolerance_pct: float = declare_setting(0.5, 0, 100)  # ... within this many points (R)
    first_depth: int = declare_setting(1, 1, 1000)  # D_i of Algorithm 1
    last_depth: int = declare_setting(8, 1, 1000)  # D_f; unless overridden the architecture's largest
    depth_epochs: int | None = declare_setting(None, 0, 10**6)  # most epochs at one depth; None: until converged
    finetune_epochs: int | None = declare_setting(None, 0, 10**6)  # most of fine-tuning; None: until converged
    full_epochs: int | None = declare_setting(None, 0, 10**6)  # most of the full network; None: until converged
    threads: int | None = declare_setting(None, 1, 1024)  # of the CPU; None: all there are

    @property
    def goal_pct(self) -> float:
        """The validation accuracy, in %, at which the search for the depth ends: target less tolerance."""
        return round(self.target_pct - self.tolerance_pct, 6)

    @property
    def one_cycle(self) -> bool:
        """Whether the learning rate rises and falls once in a training stage, instead of the plateau rule."""
        return self.rule == "equal"

    def most_epochs(self, stage: str) -> int | None:
        """Return the most epochs of a training stage (warmup, depth, finetune or full); None: until converged."""
        return getattr(self, f"{stage}_epochs")

    @property
    def overridden(self) -> dict[str, Any]:
        """The dict of settings, by name, whose values differ from those that dataset, profile and rule imply."""
        usual = DEFAULT_SETTINGS | presets.preset_settings(self.row, self.profile, self.rule)
        if self.architecture in ARCHITECTURES:  # its largest depth follows
            usual["last_depth"] = ARCHITECTURES[self.architecture].depth
        return {name: getattr(self, name) for name in SETTING_FIELDS if getattr(self, name) != usual[name]}

    @property
    def label(self) -> str:
        """The overridden settings as text, e.g. "bfloat16, threads 1"; empty if there are none."""
        return describe_settings(self.overridden)

    @property
    def name(self) -> str:
        """The run folder's name: dataset, variant, rule, overridden settings, seed. Unique within a profile."""
        label = "-".join(part.replace(" ", "_") for part in self.label.split(", ") if part)
        if len(label) > MAXIMUM_LABEL_LENGTH:
            label = f"{label[:MAXIMUM_LABEL_LENGTH]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
        return "-".join(filter(None, (self.row, self.variant, self.rule, label, f"seed{self.seed}")))


def stage_title(stage: str, depth: int) -> str:
    """Return the title of a training stage (warmup, depth, finetune or full), e.g. "warm-up" or "fine-tuning 3"."""
    titles = {"warmup": "warm-up", "full": "whole network", "finetune": f"fine-tuning {depth}"}
    return titles.get(stage, f"depth {depth}")


def describe_settings(overridden: dict[str, Any]) -> str:
    """Return settings, a dict by name, as readable text, e.g. "width 16, bfloat16, no nesterov"."""
    words = []
    for name, value in overridden.items():
        said = name.replace("_", " ")
        words.append(said if value is True else f"no {said}" if value is False else f"{said} {value}".lower())
    return ", ".join(words)


SETTING_FIELDS = {item.name: item for item in dataclasses.fields(Recipe) if item.metadata}  # all that may be overridden
DEFAULT_SETTINGS = {name: item.default for name, item in SETTING_FIELDS.items()}


def resolve(
    row: str, variant: str = "odn", profile: str = "smoke", rule: str = "", seed: int = 0, **overrides: Any
) -> Recipe:
    """Return the checked `Recipe` of one training run: presets of dataset, profile and rule, then `overrides` by name.

    An empty `rule` means the profile's default. RecipeError has a line for each problem.
    """
    rule = rule or presets.default_rule(profile)
    problems = [
        f"{name} {value!r} does not exist: choose one of {', '.join(known)}"
        for (name, known), value in zip(CHOICES.items(), (row, variant, profile, rule), strict=True)
        if not isinstance(value, str) or not (value in known or (name == "row" and OWN_ROW_PATTERN.fullmatch(value)))
    ]
    if type(seed) is not int or not 0 <= seed < 2**31:
        problems.append(f"seed {seed!r} is not a whole number from 0 to {2**31 - 1}")
    problems += [problem for name, value in overrides.items() if (problem := _problem(name, value))]
    limited = overrides.keys() & {"train_images", "validation_images"}
    if limited and isinstance(row, str) and OWN_ROW_PATTERN.fullmatch(row):
        problems.append("own images are all used: for fewer of them take some out of the folder")
    if not problems:
        floats = {name for name in overrides if SETTING_FIELDS[name].type == "float"}
        overrides |= {name: float(overrides[name]) for name in floats}  # 90 names the same run as 90.0
        chosen = presets.preset_settings(row, profile, rule) | overrides
        largest = ARCHITECTURES[chosen["architecture"]].depth
        recipe = Recipe(row, variant, profile, rule, seed, **{"last_depth": largest} | chosen)
        problems = _contradictions(recipe)
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe


def resolve_all(wanted: Iterable[dict[str, Any]]) -> list[Recipe]:
    """Return the recipes of several dicts of arguments of `resolve`; RecipeError lists the problems of all of them."""
    made, problems = [], {}
    for arguments in wanted:
        try:
            made.append(resolve(**arguments))
        except RecipeError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise RecipeError("\n".join(problems))
    return made


def read_run(folder: Path) -> SimpleNamespace:
    """Return a run's recorded settings, results (if finished), goal_pct, label, name and folder as attributes."""
    recorded = DEFAULT_SETTINGS | read_json(folder / "recipe.json")  # those of old runs hold more than a `Recipe`
    result = read_json(folder / "result.json") or {"changed": Recipe(**recorded).overridden}
    about = {"goal_pct": round(recorded["target_pct"] - recorded["tolerance_pct"], 6), "name": folder.name}
    return SimpleNamespace(**recorded | result | about, label=describe_settings(result["changed"]), folder=folder)


def unknown_parameter_message(name: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown parameter name: the most similar of the `known` ones, and all of them."""
    near = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no parameter {name!r}: {meant}choose from {', '.join(known)}"


def _problem(name: str, value: Any) -> str | None:
    if name not in SETTING_FIELDS:
        return unknown_parameter_message(name, SETTING_FIELDS)
    item = SETTING_FIELDS[name]
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
    largest, odn = ARCHITECTURES[recipe.architecture].depth, recipe.variant == "odn"
    first, last, equal = recipe.first_depth, recipe.last_depth, recipe.one_cycle
    limits = ("warmup_epochs", "finetune_epochs")  # the last depth has no others: it is fine-tuned at once
    if equal or not odn:
        limits = ("depth_epochs" if odn else "full_epochs",)
    untrained = f"{' = '.join(limits)} = 0 leaves {f'depth {last}' if odn else 'the network'} untrained"
    missing = f"does not exist: {recipe.architecture} has depths 1 to {largest}"
    holds = {
        f"first_depth {first} {missing}": first > largest,
        f"last_depth {last} {missing}": last > largest,
        f"first_depth {first} is beyond last_depth {last}": last < first <= largest,
        f"{untrained}: allow at least one epoch": all(getattr(recipe, limit) == 0 for limit in limits),
        "rule equal needs depth_epochs and full_epochs: whole numbers, not none":
            equal and None in (recipe.depth_epochs, recipe.full_epochs),
        "rule equal has no warm-up and no fine-tuning: leave warmup_epochs and finetune_epochs at 0":
            equal and (recipe.warmup_epochs or recipe.finetune_epochs),
        "nesterov needs a momentum above 0": recipe.nesterov and recipe.momentum == 0,
        f"tolerance_pct {recipe.tolerance_pct:g} is larger than target_pct {recipe.target_pct:g}":
            recipe.tolerance_pct > recipe.target_pct,
    }  # fmt: skip
    return [problem for problem, is_so in holds.items() if is_so]
