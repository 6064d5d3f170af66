"""Reuse of a depth is counted rightly, on a tiny search and on chosen figures."""

import pandas as pd
import pytest

from odnlib import experiment, recipes
from odnlib.files import read_json
from studies import common, reuse
from tests.conftest import tiny_recipe
from tests.pretend import pretend_run

PAIRS = [("mnist", "emnist"), ("emnist", "mnist")]


@pytest.mark.parametrize("rule", ["released", "equal"])
def test_plain_training_at_the_cost_of_the_search(tiny_data, tmp_path, rule):
    recipe = tiny_recipe(rule=rule)
    search = experiment.run(recipe, lambda: tiny_data, tmp_path)
    plain, result = reuse.plan_training_at_same_cost(recipe, search), read_json(search / "result.json")
    assert (plain.variant, plain.last_depth, plain.warmup_epochs) == ("full", result["depth"], recipe.warmup_epochs)
    per_epoch = pd.read_csv(search / "epochs.csv")["train_tmacs"].diff().iloc[-1]
    assert plain.one_cycle or plain.patience >= plain.full_epochs, "it has not converged before it has cost as much"
    assert plain.full_epochs * per_epoch == pytest.approx(result["train_tmacs"], abs=per_epoch / 2)


def test_what_cannot_be_studied_is_told_at_once():
    with pytest.raises(recipes.RecipeError, match="name no two datasets"):
        reuse.plan_searches("smoke", "equal", [("mnist", "mnist")], [0], {}, {})
    with pytest.raises(recipes.RecipeError) as error:
        reuse.plan_searches("smoke", "fast", PAIRS, [0, -1], {"wdth": 8}, {})
    assert len(str(error.value).splitlines()) == 3, "every problem once"


def test_a_study_done_again_with_other_targets_replaces_the_one_before(tmp_path):
    """Two studies at one place would have two answers to one question."""

    def train(recipe):
        folder = experiment.folder_of_run(recipe, tmp_path)
        same = (recipe.row, recipe.variant, recipe.profile, recipe.rule, recipe.seed)
        return folder if folder.exists() else pretend_run(tmp_path, *same, epochs=epochs, **recipe.overridden)

    epochs = pd.DataFrame({"depth": [2, 2], "train_tmacs": [0.5, 1.0]})
    goals = {"mnist": 95.0, "emnist": 60.0}
    steps = [({"mnist": 90.0}, [0, 1, 2], 6), (goals, [0], 2), (goals, [1, 2], 6), (goals, [0], 6)]
    for targets, seeds, count in steps:
        reuse.train_pairs(reuse.plan_searches("smoke", "equal", PAIRS, seeds, {}, targets), PAIRS, tmp_path, train)
        assert len(read_json(tmp_path / "smoke" / "reuse.json")["studies"]) == count
    lines = reuse.read_results(tmp_path, "smoke")
    assert len(lines) == 2 * 3 * 3
    assert lines["seed"].to_list()[::3] == [0, 0, 1, 2, 1, 2], "done again, a line keeps its place"
    assert set(lines["not_comparable"]) == {"stand-in images, width 8, not 64"}, "the study's own settings aside"
    assert len(reuse.summarise_over_seeds(lines)) == 4
    common.write_study("reuse", reuse, tmp_path, "smoke")
    assert {path.name for path in (tmp_path / "smoke").glob("*.csv")} == {"reuse.csv", "reuse_answers.csv"}
    assert [path.name for path in (tmp_path / "smoke" / "figures").iterdir()] == ["reuse-resnet18-equal.png"]
    arm = read_json(tmp_path / "smoke" / "reuse.json")["studies"][0]["plain"]
    (tmp_path / "smoke" / "runs" / arm / "result.json").unlink()
    assert len(reuse.read_results(tmp_path, "smoke")) < len(lines), "without an arm there is nothing to compare"


def lines_of(reused: list[float], plain: list[float], **columns: str) -> pd.DataFrame:
    arms = {"search": [90.0, 91.0, 92.0], "reused": reused, "plain": plain}
    lines = pd.DataFrame(arms).rename_axis("seed").melt(var_name="arm", value_name="test_acc_pct", ignore_index=False)
    lines["train_tmacs"] = (lines["arm"] == "search") + 1.0
    usual = {"row": "mnist", "sibling": "emnist", "profile": "reduced", "architecture": "resnet18", "rule": "released"}
    usual |= {"settings": "", "not_comparable": "", "processor": "one"}
    return lines.reset_index().assign(**usual | columns)


BETTER, ALIKE, WORSE, WIDE = [95.0, 96.2, 97.1], [90.0, 91.1, 92.0], [80.0, 81.5, 82.0], [80.0, 91.5, 99.0]
HOLDS, FAILS, OPEN = ["holds"] * 2, ["does not hold"] * 2, ["open"] * 2
CASES = [(ALIKE, WORSE, HOLDS), (WORSE, BETTER, FAILS), (WIDE, WIDE, OPEN)]


@pytest.mark.parametrize(("reused", "plain", "verdicts"), CASES)
def test_answers(reused, plain, verdicts):
    answers = reuse.summarise_over_seeds(lines_of(reused, plain))
    assert list(answers["verdict"]) == verdicts
    assert list(answers["cost_ratio"]) == [0.5, 2.0]
    assert list(answers["n"]) == [3, 3]
    assert [reuse.judge_claim(answers, question)[0] for question in reuse.ARMS_OF_QUESTION] == verdicts
    equal = reuse.summarise_over_seeds(
        lines_of(reused, plain, rule="equal")
    )  # expands nothing: says nothing of expansion
    assert [reuse.judge_claim(equal, question)[0] for question in reuse.ARMS_OF_QUESTION] == [
        verdicts[0],
        "not measured",
    ]


def test_a_gain_on_one_dataset_does_not_make_up_for_a_loss_on_another():
    gain, loss = lines_of(BETTER, WORSE), lines_of(WORSE, WORSE, row="emnist", sibling="mnist")
    answers = reuse.summarise_over_seeds(pd.concat([gain, loss]))
    verdict, why = reuse.judge_claim(answers, "reused")
    assert verdict == "does not hold"
    assert "MNIST, released, trained plainly at the depth that the search on EMNIST found" in why
    assert reuse.judge_claim(answers, "expansion")[0] == "holds"
