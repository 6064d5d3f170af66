"""The ablation's statistics, by hand on a search of eight epochs."""

import math

import pandas as pd
import pytest

from studies import ablation
from tests.pretend import pretend_run

# stage, depth, validation accuracy, validation loss
SEARCH = [
    ("warmup", 0, 90.0, 2.0), ("depth", 1, 40.0, 1.8), ("depth", 1, 60.0, 1.0), ("depth", 1, 50.0, 1.2),
    ("depth", 2, 35.0, 1.7), ("depth", 2, 75.0, 0.7), ("depth", 2, 80.0, 0.6), ("finetune", 2, 78.0, 0.65),
]  # fmt: skip


def search():
    frame = pd.DataFrame(SEARCH, columns=["stage", "depth", "val_acc_pct", "val_loss"])
    return frame.assign(epoch=range(1, len(frame) + 1), stage_epoch=1, train_acc_pct=50.0, train_loss=1.0)


def test_statistics_by_hand():
    values = ablation.compute_statistics(search(), goal_pct=80.0)
    fluctuation, loss_fluctuation = (20 + 10 + 40 + 5 + 2) / 5, (0.8 + 0.2 + 1.0 + 0.1 + 0.05) / 5
    expected = [50 - 35, 1.7 - 1.2, fluctuation, loss_fluctuation, 7, 6, 3, 2]
    assert values == pytest.approx(dict(zip(ablation.MEANING_OF_STATISTIC, expected, strict=True)))
    assert math.isnan(ablation.compute_statistics(search(), goal_pct=99.0)["epochs_to_100%"])


def seeds(with_warmup, without_warmup):
    """Lines in which every statistic has the same values."""
    with_it, without = (
        pd.DataFrame(dict.fromkeys(ablation.MEANING_OF_STATISTIC, arm)) for arm in (with_warmup, without_warmup)
    )
    return with_it.join(without.add_suffix("_without"))


def test_paired_interval_by_hand():
    """Differences -1, -2, -3: mean -2, standard error 1/sqrt(3), t(0.975, 2) = 4.303; two equal ones prove nothing."""
    line = ablation.compare_paired_seeds(seeds([4.0, 5.0, 6.0], [5.0, 7.0, 9.0])).iloc[0]
    assert (line["difference"], line["n"], line["verdict"]) == (-2.0, 3, "open")
    assert line["low"] == pytest.approx(-2 - 4.303 / 3**0.5, abs=1e-3)
    line = ablation.compare_paired_seeds(seeds([1.0, 2.0], [4.0, 5.0])).iloc[0]
    assert (line["difference"], line["high"], line["verdict"]) == (-3.0, math.inf, "open")


@pytest.mark.parametrize(
    ("with_warmup", "without_warmup", "verdict"),
    [
        ([1.0, 2.0, 3.0], [6.0, 7.1, 8.0], "holds"),
        ([6.0, 7.1, 8.0], [1.0, 2.0, 3.0], "does not hold"),
        ([1.0], [5.0], "open"),
        ([math.nan, math.nan], [5.0, 5.0], "open"),
    ],
)
def test_verdicts_and_sentences(with_warmup, without_warmup, verdict):
    lines, missing = (
        ablation.compare_paired_seeds(seeds(with_warmup, without_warmup)),
        sum(map(math.isnan, with_warmup)),
    )
    assert set(lines["verdict"]) == {verdict}
    ending = "claim is left open" if verdict == "open" else f"the claim {verdict}"
    assert ablation.describe_statistic(lines.iloc[0]).endswith("no seed has it in both arms" if missing else ending)
    assert (lines["dropped"] == missing).all()
    study = lines.assign(profile="paper", row="mnist", rule="released", settings="", not_comparable="")
    assert ablation.judge_claim(study, ablation.CONVERGENCE_STATISTICS)[0] == verdict


def test_one_pair_of_a_larger_profile_does_not_take_a_studys_place():
    pairs = {"reduced": ([1.0, 2.0, 3.0], [6.0, 7.1, 8.0]), "quick": ([1.0], [5.0])}
    about = {"row": "mnist", "rule": "released", "settings": "", "not_comparable": ""}
    lines = [ablation.compare_paired_seeds(seeds(*x)).assign(profile=name, **about) for name, x in pairs.items()]
    assert ablation.judge_claim(pd.concat(lines), ablation.CONVERGENCE_STATISTICS)[0] == "holds"


def test_only_searches_alike_are_paired(tmp_path):
    """Two seeds have both arms; a third has none, another width and another training version are no pair's."""
    for seed, other in enumerate([{}, {}, {"width": 16}, {"training_version": 2}]):
        pretend_run(tmp_path, seed=seed, epochs=search())
        pretend_run(tmp_path, seed=seed, epochs=search(), warmup_epochs=0, **other)
    lines = ablation.read_results(tmp_path, "paper")
    assert len(lines) == len(ablation.MEANING_OF_STATISTIC)
    assert set(lines["n"]) == {2, 0}  # none reached 90 % of the goal
    ablation.write_results(tmp_path, "paper")
    assert [file.name for file in tmp_path.glob("paper/*.csv")] == ["warmup_ablation-mnist-released.csv"]
    assert (tmp_path / "paper" / "figures" / "warmup_ablation-mnist-released.png").exists()
