"""Our own question: which of two ways to a small network is the better one at equal bytes."""

from types import SimpleNamespace

import pandas as pd
import pytest

from odnlib.recipes import resolve
from studies import depth_or_width as study


def line(kind: str, depth: int, size_mb: float, val_acc_pct: float, seed: int = 0) -> dict:
    names = {"row": "mnist", "kind": kind, "architecture": "any", "width": 64, "depth": depth, "seed": seed}
    sizes = {"params": 1000 * size_mb, "size_mb": size_mb, "macs_m": 10 * size_mb, "epochs": 12}
    return names | sizes | {"val_acc_pct": val_acc_pct, "test_acc_pct": val_acc_pct - 0.1, "settings": ""}


@pytest.mark.parametrize(("accuracy", "verdict"), [(99.6, "does not hold"), (99.0, "holds"), (99.3, "open")])
def test_the_best_networks_that_are_not_larger_are_compared(accuracy, verdict):
    """The paper's MNIST network has 0.61 MB: larger ones do not count, nor chains that were trained for longer."""
    depths = [(1, 0.3, 98.4), (2, 0.61, 99.3), (3, 1.5, 99.9)]
    lines = [line(study.FULL_WIDTH_KIND, *depth, seed) for seed in range(3) for depth in depths]
    lines += [line(study.CHAIN_KIND, 3, 0.31, accuracy + step, seed) for seed, step in enumerate((-0.1, 0.1, 0.0))]
    lines += [line(study.CHAIN_KIND, 4, 1.2, 99.9), line(study.LONGER_CHAIN_KIND, 3, 0.31, 99.9)]
    answer = study.compare_at_paper_size(pd.DataFrame(lines)).iloc[0]
    assert (answer["depth_depth"], answer["chain_depth"], answer["chain_n"]) == (2, 3, 3)
    assert study.judge_claim(pd.DataFrame(lines))[0] == verdict
    assert study.judge_claim(pd.DataFrame(lines[3:]))[0] == "open"  # two seeds of the depths
    assert study.judge_claim(pd.DataFrame(lines[:9]))[0] == "not measured"


def test_kinds():
    """What a network is called follows from its settings alone."""
    runs = {recipe.architecture: recipe for recipe in study.plan_recipes("reduced", ["mnist"], [0], {})}
    assert {name: kind(recipe) for name, recipe in runs.items()} == {
        "resnet18": study.NARROW_KIND,
        "chain": study.CHAIN_KIND,
    }
    assert len(study.plan_recipes("reduced", ["cifar10"], [0], {})) == 4
    longer = study.plan_recipes("reduced", ["mnist"], [0], {"depth_epochs": 30})
    assert {(recipe.architecture, kind(recipe)) for recipe in longer} == {
        ("resnet18", ""),
        ("chain", study.LONGER_CHAIN_KIND),
    }
    assert kind(resolve("mnist", "odn", "quick", "equal")) == study.FULL_WIDTH_KIND
    assert kind(resolve("mnist", "odn", "reduced", "equal")) == kind(resolve("mnist", "odn", "paper", "released")) == ""


def kind(recipe) -> str:
    settings = {name: getattr(recipe, name) for name in ("row", "rule", "variant", "embedded", "width", "architecture")}
    return study.classify_run(SimpleNamespace(changed=recipe.overridden, goal_pct=recipe.goal_pct, **settings))
