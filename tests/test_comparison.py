"""Measured beside printed: verdicts, claims, and that everything printed has one."""

import html
import re

import pandas as pd
import pytest

from odnlib.paper import TABLE_1
from studies import comparison, overview, page, report
from studies.comparison import (
    PAPER_SLIPS,
    accuracy_tolerance_pts,
    compare_with_paper,
    judge_agreement,
    read_runs_from_profile,
    select_best_evidence,
)
from tests.pretend import DEPTHS, pretend_run

CLAIM_VERDICTS = {"holds", "holds in the rows measured", "does not hold", "open", "not measured", "not comparable"}
CLAIM_VERDICTS |= {
    f"{x} {y}" for x in ("holds", "does not hold", "open") for y in ("at reduced scale", "with other settings")
}


def compared(results_dir):
    return compare_with_paper(read_runs_from_profile(results_dir, "smoke"))


def cell(frame, variant, name, row="mnist"):
    """The only line of a number."""
    (line,) = frame[(frame["row"] == row) & (frame["variant"] == variant) & (frame["cell"] == name)].itertuples()
    return line


def test_every_printed_number_has_a_verdict(tmp_path):
    best = select_best_evidence(compared(tmp_path))
    assert len(best) == 55
    assert best["verdict"].value_counts().to_dict() == {
        "equal": 27, "close": 9, "paper's slip": 4, "not measured": 15
    }  # fmt: skip
    assert not best[["row", "variant", "cell"]].duplicated().any()


def test_slips_are_borne_out_by_computation():
    lines = pd.DataFrame(comparison.compare_structure())
    evidence = lines[lines["verdict"] == "paper's slip"]
    found = set(evidence[["row", "variant", "cell"]].itertuples(index=False, name=None))
    assert found == set(PAPER_SLIPS)
    assert cell(evidence, "full", "macs_m", "svhn").why.startswith("939.91 printed is the figure of 28x28x1")


def test_a_slip_without_evidence_is_no_slip(monkeypatch):
    monkeypatch.setitem(PAPER_SLIPS, ("svhn", "full", "macs_m"), ("no reason", {"image_shape": (3, 28, 28)}))
    verdict, _ = comparison.judge_structure("svhn", "full", "macs_m", 939.91, 1164.53)
    assert verdict == "worse"


def test_runs_at_full_width_are_judged_and_averaged(tmp_path):
    for seed, accuracy in enumerate([99.2, 99.3, 99.4]):
        pretend_run(tmp_path, seed=seed, accuracy=accuracy, depth=[2, 2, 3][seed])
        pretend_run(tmp_path, seed=seed, accuracy=98.0, variant="full", depth=8)
    frame = compared(tmp_path)
    odn, depth = cell(frame, "odn", "test_acc_pct"), cell(frame, "odn", "depth")
    assert (odn.measured, odn.n, odn.verdict) == (pytest.approx(99.3), 3, "close")
    assert odn.std == pytest.approx(0.1)
    assert cell(frame, "full", "test_acc_pct").verdict == "not reproduced"
    assert (depth.measured, depth.verdict) == (pytest.approx(7 / 3), "close")
    assert comparison.average_runs_over_seeds(read_runs_from_profile(tmp_path, "smoke"))["n"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("settings", "verdict", "why"),
    [
        ({"profile": "smoke"}, "not comparable", "stand-in images, width 8, not 64"),
        ({"profile": "reduced"}, "not comparable", "width 16, not 64"),
        ({"train_images": 5000}, "not comparable", "overridden: train images 5000"),
        ({"target_pct": 90.0, "carry_best": True}, "not comparable", "overridden: target pct 90.0"),
        ({"architecture": "resnet34"}, "not measured", "no run yet"),  # it answers another question
        ({"variant": "full", "last_depth": 3}, "not measured", "no run yet"),
        ({"target_pct": 100.0, "tolerance_pct": 0.0}, "not measured", "no run yet"),
    ],
)
def test_what_is_no_evidence_for_table_1(settings, verdict, why, tmp_path):
    pretend_run(tmp_path, **settings)
    line = cell(compared(tmp_path), settings.get("variant", "odn"), "test_acc_pct")
    assert (line.verdict, line.why) == (verdict, why)


def test_a_comparable_run_is_better_evidence_than_a_stand_in(tmp_path):
    pretend_run(tmp_path, profile="smoke", accuracy=90.0)
    pretend_run(tmp_path, profile="quick", accuracy=99.0)
    assert cell(select_best_evidence(compared(tmp_path)), "odn", "test_acc_pct").profile == "quick"
    assert set(read_runs_from_profile(tmp_path, "reduced")["profile"]) == {"quick"}


def test_accuracy_verdicts():
    """At 99.31 % of 10,000 images one run's binomial standard deviation is 0.083 points."""
    assert accuracy_tolerance_pts(99.31, float("nan"), 1, 10_000) == pytest.approx(1.96 * 0.0828 * 2**0.5, rel=1e-3)
    assert accuracy_tolerance_pts(99.31, 0.1, 4, 10_000) > accuracy_tolerance_pts(99.31, 0.1, 100, 10_000) > 0.23
    verdicts = [judge_agreement(99.31, measured, 0.23) for measured in (99.312, 99.1, 99.6, 99.0)]
    assert verdicts == ["equal", "close", "better", "worse"]
    depths = [judge_agreement(2, found, 0.5, more_is_better=False) for found in (2, 2.3, 2.5, 1)]
    assert depths == ["equal", "close", "worse", "better"]


def verdicts_of(folder):
    return report.Report(folder, "smoke").claims.set_index("key")["verdict"].str.partition(";")[0]


def test_every_claim_has_a_verdict(tmp_path):
    verdicts = verdicts_of(tmp_path)
    assert len(verdicts) == 26
    assert set(verdicts) <= CLAIM_VERDICTS
    assert (verdicts[["mnist_98_64", "svhn_96_44", "over_95"]] == "holds").all()


@pytest.mark.slow
def test_claims_about_runs(tmp_path):
    pretend_run(tmp_path, accuracy=99.0)
    pretend_run(tmp_path, accuracy=99.6, variant="full", depth=8)
    verdicts = verdicts_of(tmp_path)
    assert verdicts["algorithm_stops"] == "holds"
    assert (verdicts["within_1_75"], verdicts["byproducts"]) == ("holds in the rows measured", "not measured")
    for row in TABLE_1:
        for variant, depth in (("odn", 2), ("full", 8)) if row != "mnist" else ():
            depths = DEPTHS.assign(val_acc_pct=[98.0, 98.5, 99.0])
            pretend_run(tmp_path, row=row, accuracy=99.0, variant=variant, depth=depth, depths=depths)
    verdicts = verdicts_of(tmp_path)
    assert (verdicts["within_1_75"], verdicts["byproducts"]) == ("holds", "holds in the rows measured")
    depths = DEPTHS.assign(val_acc_pct=[98.0, 98.5, 98.5])  # three, of which one is no better than a smaller one
    pretend_run(tmp_path, accuracy=99.0, depths=depths, seed=1)
    assert verdicts_of(tmp_path)["byproducts"] == "does not hold"
    epochs = tmp_path / "paper" / "runs" / "mnist-odn-released-seed0" / "epochs.csv"
    epochs.write_text(epochs.read_text().replace("depth,1,98.5", "depth,1,99.2"))  # left although it met the goal
    assert verdicts_of(tmp_path)["algorithm_stops"] == "does not hold"


def test_seeds_of_different_training_versions_are_not_averaged(tmp_path):
    for seed, version in enumerate([1, 1, 2]):
        pretend_run(tmp_path, seed=seed, training_version=version)
    assert sorted(comparison.average_runs_over_seeds(read_runs_from_profile(tmp_path, "paper"))["n"]) == [1, 2]


def test_headline_has_every_search_that_met_its_goal_beside_the_whole_network(tmp_path):
    pretend_run(tmp_path, profile="quick", rule="equal", accuracy=99.1)
    pretend_run(tmp_path, profile="quick", rule="fast", accuracy=99.5, variant="full", depth=8)
    pretend_run(tmp_path, profile="reduced", accuracy=98.0)
    pretend_run(tmp_path, profile="reduced", accuracy=97.0, seed=1)
    pretend_run(tmp_path, profile="reduced", accuracy=98.5, variant="full", depth=8)
    pretend_run(tmp_path, profile="paper", accuracy=99.0, met_goal=False)
    runs = read_runs_from_profile(tmp_path, "reduced")
    lines, narrow = report.make_headline_table(runs), report.make_headline_table(runs[runs["profile"] == "reduced"])
    assert lines["trained"].dropna().tolist() == ["every depth alike (equal)"]
    assert lines["grade"].tolist()[1:] == ["not measured at full width"] * 4
    full, (narrow,) = lines.iloc[0], narrow.to_dict("records")
    assert (full["dataset"], narrow["dataset"]) == ("MNIST", "MNIST, width 16")
    assert (full["n"], narrow["n"], narrow["trained"]) == ("1", "2", "the paper's procedure (released), reduced")
    assert full["test accuracy, % (paper)"] == "99.10 (99.31)"
    assert (full["whole network, % (paper)"], narrow["whole network, % (paper)"]) == (
        "99.50 (99.61), n = 1, trained otherwise",
        "98.50, n = 1",
    )
    assert (full["difference (points)"], narrow["difference (points)"]) == ("-0.40", "-1.00")
    assert narrow["grade"] == "a trend"
    assert full["training, 10¹² MACs"] == "1"


def test_a_report_of_narrow_networks_alone_begins_with_its_counts(tmp_path):
    pretend_run(tmp_path, profile="smoke", accuracy=98.0)
    assert report.Report(tmp_path, "smoke").summarise()[0].startswith("Of the 15 numbers")


@pytest.mark.parametrize(
    ("grade", "sign"),
    [
        ("procedure reproduced, 1 of 1 judged", "✔"),
        ("not reproduced, 0 of 1 (depth 3, not 2 to 2)", "✘"),
        ("not corroborated, n = 1 (depth 2 has not been trained for twice as long yet)", "✘"),
        ("accuracy not corroborated, n = 1", "✘"),
        ("depth and accuracy corroborated, n = 3", "●"),
        ("upper bound of the depth, n = 3", "≤"),
        ("a trend, n = 3", "~"),
    ],
)
def test_every_grade_has_a_sign_that_colours_are_not_needed_for(grade, sign):
    assert overview.find_look(grade)[0] == sign
    assert len({(sign, color) for sign, _, color in overview.LOOK_OF_GRADE.values()}) == len(
        {x[0] for x in overview.LOOK_OF_GRADE.values()}
    )


def test_table_1_has_measured_over_printed_with_n_and_spread(tmp_path):
    for seed, accuracy in enumerate([99.2, 99.3, 99.4]):
        pretend_run(tmp_path, seed=seed, accuracy=accuracy)
    table = page.render_table_1(select_best_evidence(compared(tmp_path))).data
    assert "<b>○ 99.30</b><br>99.31 printed<br>± 0.10, n = 3</td>" in table
    assert "<b>= 11.17</b><br>11.17 printed</td>" in table
    assert "<b>· </b><br>96.08 printed</td>" in table
    assert table.count(" printed<") == 55
    assert re.findall(r"<th[^>]*level0[^>]*>([a-z ]+)</th>", table) == [page.TRAINED, page.UNTRAINED, page.TRAINED]


def test_every_claim_is_a_card_or_named_as_not_measured(tmp_path):
    pretend_run(tmp_path, accuracy=99.0)
    made = report.Report(tmp_path, "smoke")
    cards, _, unanswered = page.render_claims(made.claims, tmp_path).data.partition("Not measured here")
    for claim in made.claims.itertuples():
        told = html.escape(claim.statement).replace("&#x27;", "&#39;")[1:]
        assert told in (unanswered if claim.verdict == "not measured" else cards), claim.statement
        assert (told in cards) != (told in unanswered)
