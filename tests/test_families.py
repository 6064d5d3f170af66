"""Which part of other networks was enough: by hand."""

import pandas as pd
import pytest

from odnlib.recipes import RecipeError
from studies import common, families
from tests.pretend import pretend_run


def family_lines(depths: dict[str, list[int]], goal: bool = True) -> pd.DataFrame:
    lines = [
        {"architecture": name, "seed": seed, "depth": depth, "of": 8, "met_goal": goal, "size_share": depth / 8}
        for name, of_name in depths.items() for seed, depth in enumerate(of_name)
    ]  # fmt: skip
    study = {"profile": "paper", "row": "mnist", "rule": "equal", "settings": "", "not_comparable": ""}
    return pd.DataFrame(lines).assign(goal_pct=90.0, processor="a machine", **study)


def test_verdict_on_families():
    kept = {"mobilenet_v1": [7, 5]}
    for depths, verdict in (([2, 3], "holds"), ([2, 8], "open"), ([8, 8], "does not hold")):
        assert families.judge_claim(family_lines(kept | {"wrn_40_2": depths}))[0] == verdict
    assert families.judge_claim(family_lines(kept, goal=False))[0] == "does not hold"


def test_a_study_is_three_families_searched_alike(tmp_path):
    with pytest.raises(RecipeError, match="target_pct 101"):
        families.plan_recipes("smoke", "mnist", [0], {"target_pct": 101.0})
    planned = families.plan_recipes("reduced", "mnist", [0], {"target_pct": 90.5})  # makes the networks known
    assert {(x.rule, x.architecture) for x in planned} == {("equal", name) for name in families.UNTRIED_ARCHITECTURES}
    near_whole = families.plan_recipes("reduced", "mnist", [0, 1], {"tolerance_pct": 0.0}, {"wrn_16_8": 85.25})
    assert {(x.architecture, x.target_pct, x.seed) for x in near_whole} == {
        ("wrn_16_8", 85.25, 0),
        ("wrn_16_8", 85.25, 1),
    }
    whole = families.plan_recipes("reduced", "mnist", [100], {"variant": "full"}, ["wrn_16_8"])
    assert [(x.architecture, x.variant) for x in whole] == [("wrn_16_8", "full")]
    same = {"profile": "reduced", "rule": "equal", "target_pct": 90.5}
    for name in ("wrn_40_2", "mobilenet_v1"):
        pretend_run(tmp_path, architecture=name, **same)
    pretend_run(tmp_path, architecture="resnet18", **same)  # the row's own is none of them
    pretend_run(tmp_path, architecture="resnet101", **same, training_version=2)
    assert families.read_results(tmp_path, "reduced").empty
    pretend_run(tmp_path, architecture="mobilenet_v2", **same, met_goal=False)
    pretend_run(tmp_path, architecture="mobilenet_v2", **same | {"target_pct": 80.5})  # its higher goal counts
    common.write_study("families", families, tmp_path, "reduced")
    lines = pd.read_csv(tmp_path / "reduced" / "families.csv").set_index("architecture")
    assert list(lines.index) == ["mobilenet_v1", "mobilenet_v2", "wrn_40_2"]
    assert lines.loc["wrn_40_2", "depth_share"] == pytest.approx(2 / 18, rel=1e-5)
    assert lines.loc["wrn_40_2", "size_share"] == pytest.approx(0.61 / 44.77, rel=1e-5)
    assert set(lines["not_comparable"]) == {"width 16, not 64"}
    assert (tmp_path / "reduced" / "figures" / "families-mnist-equal.png").exists()
