"""The campaign: every run once, states from the folders, costs that finished runs bear out."""

import pytest

from odnlib import ROOT
from odnlib.__main__ import main
from odnlib.recipes import resolve
from odnlib.results import read_json, run_folder
from odnlib.verdict import campaign


def test_planned_cost_is_what_a_finished_run_took():
    settings = {"warmup_epochs": 2, "depth_epochs": 4, "finetune_epochs": 2, "full_epochs": 3, "target_pct": 97.5}
    recipe = resolve("mnist", "full", "reduced", "released", 0, **settings)
    took = read_json(run_folder(recipe, ROOT / "results") / "result.json")["train_tmacs"]
    assert campaign.planned_tmacs(recipe) == pytest.approx(took)


def test_it_lists_every_run_once_and_reads_its_state(tmp_path, monkeypatch, capsys):
    part = campaign.Part("a question", "smoke", "released", ("mnist",), settings={"width": 8, "train_images": 64})
    monkeypatch.setattr(campaign, "CAMPAIGN", (part,))
    assert main(["campaign", "--runs", "--results-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("smoke/mnist-odn-released-n64-seed0") == 1
    assert shown.count("missing") == 2
    assert "a question" in shown


def test_the_longest_run_bounds_the_whole():
    assert campaign.wall_hours([3.0, 1.0, 1.0, 1.0], 1) == 6.0
    assert campaign.wall_hours([1.0, 1.0, 1.0, 3.0], 2) == 3.0
    assert campaign.wall_hours([3.0, 1.0, 1.0, 1.0], 8) == 3.0
    assert campaign.wall_hours([], 8) == 0.0


def test_no_run_stands_in_it_twice():
    names = [f"{r.profile}/{r.name}" for part in campaign.CAMPAIGN for r in part.recipes()]
    assert len(set(names)) == len(names)
