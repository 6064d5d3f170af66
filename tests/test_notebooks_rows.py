"""What the notebooks of the five rows show."""

import nbformat
import pandas as pd
import pytest
import torch

import run_all
from odnlib import recipes
from odnlib.paper import TABLE_1
from odnlib.presets import SETTINGS_OF_RULE
from studies import latency, plots, report, rows
from tests.conftest import tiny_recipe
from tests.pretend import DEPTHS, EPOCHS, pretend_run

CURVES = EPOCHS.assign(epoch=range(1, 5), stage_epoch=1, train_acc_pct=90.0, val_acc_pct=91.0, train_loss=1, val_loss=1)
SIZES = DEPTHS.assign(params=[1, 2, 8], macs_m=[1.0, 2.0, 8.0], chosen=[False, True, False])


def pretended(results_dir, rule="released", **more):
    """A finished search and its whole network."""
    kept = {"epochs": CURVES, "depths": SIZES, "rule": rule} | more
    full = {"variant": "full", "depth": 8, "accuracy": 99.6}
    return pretend_run(results_dir, **kept), pretend_run(results_dir, **kept | full)


def test_what_the_next_depth_is_good_for(monkeypatch, tmp_path, capsys, tiny_data):
    """Depth 1 takes everything for class 0, depth 2 is always right."""
    networks = tmp_path / "results" / "quick" / "networks" / "mnist"
    networks.mkdir(parents=True)
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    rows.draw_gained_images("mnist", tmp_path)
    for depth in (1, 2):
        (networks / f"depth0{depth}.onnx").touch()
    rows.draw_gained_images("mnist", tmp_path)
    left_out = capsys.readouterr().out.splitlines()
    assert "no published networks of two depths" in left_out[0]
    assert f"{tmp_path} has none of MNIST" in left_out[1]
    (tmp_path / "MNIST").mkdir()
    labels, drawn = tiny_data.validation.labels, []
    answers = {"depth01": torch.zeros(30), "depth02": labels}
    monkeypatch.setattr(
        "studies.export.run_onnx", lambda path, _: torch.nn.functional.one_hot(answers[path.stem].long(), 3).numpy()
    )
    monkeypatch.setattr(rows.data, "load_splits", lambda *_: tiny_data)
    monkeypatch.setattr(plots, "draw_images", lambda *shown: drawn.extend(shown))
    rows.draw_gained_images("mnist", tmp_path, drawn=5)
    wrong = int((labels != 0).sum())
    assert (
        f"Of 30 validation images depth 2 has {wrong} right that depth 1 has wrong, and 0 the"
        in capsys.readouterr().out
    )
    assert len(drawn[0]) == 5
    assert drawn[1][0] == f"{int(labels[labels != 0][0])}\ndepth 1:\n0"


def test_settings_are_those_that_the_rule_uses():
    released, equal = (
        rows.tabulate_settings(recipes.resolve("svhn", profile="paper", rule=rule)) for rule in ("", "equal")
    )
    assert released.loc[["rate", "target_pct", "patience"], "value"].tolist() == ["0.1", "96.0", "23"]
    assert "patience" not in equal.index
    shown = rows.tabulate_settings(tiny_recipe(depth_epochs=3))
    assert shown.loc["depth_epochs", ["value", "overridden"]].tolist() == ["3", True]


def settings_by_rule(row):
    """The settings of a row at full width as a table in Markdown, a column per rule."""
    profiles = {rule: "quick" if rule == "equal" else "paper" for rule in SETTINGS_OF_RULE}
    columns = {rule: rows.tabulate_settings(recipes.resolve(row, profile=x, rule=rule)) for rule, x in profiles.items()}
    values = (
        pd.DataFrame({rule: table["value"] for rule, table in columns.items()})
        .fillna("")
        .reindex(rows.MEANING_OF_SETTING)
    )
    return report.format_markdown_table(
        values.rename_axis("setting").assign(meaning=rows.MEANING_OF_SETTING).reset_index()
    )


@pytest.mark.parametrize(("number", "row"), run_all.ROW_OF_NOTEBOOK.items())
def test_a_rows_notebook_shows_the_settings_that_its_rules_use(number, row):
    assert settings_by_rule(row) in nbformat.read(run_all.NOTEBOOKS[number], 4).cells[1].source


def test_structure_is_the_papers_at_full_width():
    lines = rows.measure_depths(recipes.resolve("mnist", profile="paper")).set_index("depth")
    assert lines.loc[2].round(2).tolist() == [149_322, pytest.approx(0.61, 0.01), 117.36]


@pytest.mark.slow
def test_what_is_evidence_is_drawn_and_not_twice(tmp_path):
    pairs = [pretended(tmp_path), pretended(tmp_path, rule="fast", carry_best=True)]
    alone = pretend_run(tmp_path, seed=1, epochs=CURVES, depths=SIZES)  # its whole network is missing
    pretend_run(tmp_path, seed=2, train_images=100)
    searches = [alone, *(odn for odn, _ in pairs)]
    names = {f"{odn.name}-{what}.png" for odn in searches for what in ("choice", "history")}
    names.add("mnist-resnet18-width_64-structure.png")
    written = []
    for _ in range(2):
        rows.write_results(tmp_path, "paper")
        written.append({path.name: path.stat().st_mtime_ns for path in tmp_path.glob("paper/figures/*")})
    assert written[0].keys() == names | {f"{full.name}-history.png" for _, full in pairs}
    assert written[0] == written[1]
    rows.write_results(tmp_path, "quick")
    assert not (tmp_path / "quick").exists()


def test_what_the_search_found_in_words(tmp_path):
    found = rows.describe_outcome(*pretended(tmp_path))
    has = "it has 99.40 % of the validation images right after fine-tuning"
    assert found == f"Depth 2 of 8 is the first to meet the goal of 99 %: {has}."
    missed = rows.describe_outcome(*pretended(tmp_path, rule="equal", met_goal=False, depths=SIZES.fillna(99.0)))
    assert missed.startswith("No depth met the goal of 99 %.")
    assert missed.endswith("within half a point of depth 8, trained alike (99.40 %) is 2.")


def test_measured_beside_printed(tmp_path):
    table = rows.compare_with_paper(*pretended(tmp_path, profile="quick", rule="equal"))
    assert table.loc[("odn", "test accuracy (%)")].tolist() == [99.31, 99.31, 0.0]
    assert table.columns.tolist() == ["measured (quick)", "paper", "difference"]
    assert table.loc[("odn", "size reduction (%)"), "paper"] == 98.64
    assert "difference" not in rows.compare_with_paper(*pretended(tmp_path / "narrow", profile="reduced"))


@pytest.mark.slow
def test_latency_is_measured_once_and_judged(tmp_path):
    odn, full = pretended(tmp_path, last_depth=8)
    lines = latency.measure_latency(odn, full)
    assert lines["batch"].tolist() == [1, 128]
    assert (lines["ratio_low"] <= lines["ratio_high"]).all()
    assert (lines[["odn_ms", "full_ms"]] > 0).all(axis=None)
    pd.testing.assert_frame_equal(latency.measure_latency(odn, full), lines)
    assert latency.read_results(tmp_path, "paper")["macs_ratio"].round(1).tolist() == [3.9, 3.9]
    measured = lines.assign(macs_ratio=4.0, not_comparable="")
    one_row = "holds on a CPU in the rows measured; emnist, fashion_mnist, svhn, cifar10 not measured"
    for ratios, expected in {(2.0, 2.0): one_row, (0.5, 0.5): "does not hold", (2.0, 0.5): "does not hold"}.items():
        assert latency.judge_claim(measured.assign(latency_ratio=ratios))[0] == expected
    measured = pd.concat([measured.assign(row=row, latency_ratio=2.0) for row in TABLE_1])
    verdict, sentence = latency.judge_claim(measured)
    assert (verdict, "faster in 100%" in sentence) == ("holds on a CPU", True)
    assert "batch 128: 2.0 times as fast, for 4.0 times fewer MACs" in sentence
    assert latency.judge_claim(measured.assign(not_comparable="width 8, not 64"))[0] == "not comparable"


def test_figures_say_what_they_are_evidence_of(tmp_path):
    recipe = recipes.resolve("mnist", profile="reduced", train_images=1500, threads=1, architecture="resnet34")
    said = "MNIST, ResNet-34, width 16 of 64, rule released with train images 1500, seed 0 - real images, "
    assert (
        plots.describe_evidence(recipe) == f"{said}profile reduced, narrow network: a trend, not a row of Table\u00a0I"
    )
    told = plots.describe_evidence(recipe, "3 seeds", varied=("row", "train_images"))
    assert told.startswith("ResNet-34, width 16 of 64, rule released, 3 seeds - ")
    for settings, words in (
        ({"tolerance_pct": 0.0, "target_pct": 100.0}, "no goal"),
        ({"target_pct": 98.0}, "target 98.0 %"),
    ):
        recipe = recipes.resolve("mnist", profile="paper", **settings)
        assert f"rule released with {words}, seed 0" in plots.describe_evidence(recipe)
    run = recipes.read_run(pretend_run(tmp_path, rule="fast", width=64))
    assert "rule fast (an upper bound of the depth), seed 0 - real images, profile paper" in plots.describe_evidence(
        run
    )
    assert plots.describe_evidence(tiny_recipe()).endswith("an illustration, no reproduction")


def test_row_notebooks_differ_only_in_their_parameters_and_prose():
    code = {}
    for number, row in run_all.ROW_OF_NOTEBOOK.items():
        cells = [cell for cell in nbformat.read(run_all.NOTEBOOKS[number], 4).cells if cell.cell_type == "code"]
        assert cells[0].source.startswith(f'row = "{row}"')
        code[row] = [cells[0].source.replace(row, "ROW"), *(cell.source for cell in cells[1:])]
    assert all(cells == code["mnist"] for cells in code.values())
