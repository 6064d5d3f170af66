"""The ablation's statistics, by hand on a search of eight epochs."""

import math

import pandas as pd
import pytest

from odnlib.studies import ablation

# stage, depth, validation accuracy, validation loss
SEARCH = [
    ("warmup", 0, 30.0, 2.0), ("depth", 1, 40.0, 1.8), ("depth", 1, 60.0, 1.0), ("depth", 1, 50.0, 1.2),
    ("depth", 2, 35.0, 1.7), ("depth", 2, 75.0, 0.7), ("depth", 2, 80.0, 0.6), ("finetune", 2, 78.0, 0.65),
]  # fmt: skip


def search():
    frame = pd.DataFrame(SEARCH, columns=["stage", "depth", "val_acc_pct", "val_loss"])
    return frame.assign(epoch=range(1, len(frame) + 1))


def test_statistics_by_hand():
    found = ablation.statistics(search(), goal_pct=80.0)
    assert found["jump_pts"] == 50.0 - 35.0
    assert found["loss_jump"] == pytest.approx(1.7 - 1.2)
    assert found["fluctuation_pts"] == pytest.approx((20 + 10 + 40 + 5 + 2) / 5)
    assert found["loss_fluctuation"] == pytest.approx((0.8 + 0.2 + 1.0 + 0.1 + 0.05) / 5)
    assert [found[f"epochs_to_{share}%"] for share in (50, 75, 90, 100)] == [2, 3, 6, 7]
    assert math.isnan(ablation.statistics(search(), goal_pct=99.0)["epochs_to_100%"])
    assert set(found) == set(ablation.STATISTICS)


def per_run(with_warmup, without_warmup):
    lines = []
    for arm, values in zip(ablation.ARMS, (with_warmup, without_warmup), strict=True):
        lines += [{"arm": arm, "seed": s, **dict.fromkeys(ablation.STATISTICS, v)} for s, v in enumerate(values)]
    return pd.DataFrame(lines)


def test_paired_interval_by_hand():
    """Differences -1, -2, -3: mean -2, standard error 1/sqrt(3), t(0.975, 2) = 4.303."""
    line = ablation.paired(per_run([4.0, 5.0, 6.0], [5.0, 7.0, 9.0])).iloc[0]
    assert (line["difference"], line["n"]) == (-2.0, 3)
    assert line["low"] == pytest.approx(-2 - 4.303 / 3**0.5, abs=1e-3)
    assert line["verdict"] == "open"


def test_two_equal_differences_prove_nothing():
    line = ablation.paired(per_run([1.0, 2.0], [4.0, 5.0])).iloc[0]
    assert (line["low"], line["high"], line["verdict"]) == (-3.0, -3.0, "open")


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
    paired = ablation.paired(per_run(with_warmup, without_warmup))
    assert set(paired["verdict"]) == {verdict}
    said = ablation.sentence(paired, "fluctuation_pts")
    endings = {"holds": "the claim holds", "does not hold": "the claim does not hold", "open": "the claim is left open"}
    assert said.endswith("no seed has it in both arms" if math.isnan(with_warmup[0]) else endings[verdict])
    assert (paired["dropped"] == sum(map(math.isnan, with_warmup))).all()
