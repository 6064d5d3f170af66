"""The migrator of the old house's run folders, on hand-written ones."""

import os
import runpy
import subprocess
from types import SimpleNamespace

import pytest

from odnlib import experiment, recipes
from odnlib.files import ROOT, read_json, write_json

HISTORY = not subprocess.run(["git", "cat-file", "-e", "2a8bc55"], cwd=ROOT, capture_output=True).returncode
pytestmark = pytest.mark.skipif(not (HISTORY or os.environ.get("CI")), reason="needs the old house, in git's history")
migrate = SimpleNamespace(**runpy.run_path(str(ROOT / "results/migrate.py")))
FAST = {"one_cycle": True, "carry_weights": True, "nesterov": True, "batch_size": 32, "rate": 0.1, "warmup_epochs": 0}
FAST |= {"increment_rate_factor": 1.0, "finetune_epochs": 0, "first_epochs": 8, "depth_epochs": 6, "full_epochs": 8}


def old_run(folder, protocol, depth, val_acc_pct, seed=0, variant="odn", **settings):
    """A run of EMNIST in two epochs, as the old house wrote it; the test accuracy is 90 + seed."""
    folder.mkdir(parents=True)
    run = {"row": "emnist", "variant": variant, "profile": "quick", "protocol": protocol, "seed": seed}
    usual = {
        x: item.default for x, item in recipes.SETTING_FIELDS.items() if x not in ("crop_padding", "flip", "keep_last")
    }
    usual |= {"target_pct": 95.0, "width": 16}
    usual |= FAST | {"first_depth": depth, "last_depth": depth} if protocol == "fast" else {"one_cycle": False}
    write_json(folder / "recipe.json", run | usual | settings)
    run |= {"tag": "w16", "depth": depth, "max_depth": 8, "thop_macs_m": 1.5, "val_acc_pct": val_acc_pct, "epochs": 2}
    run |= {"test_acc_pct": 90 + seed, "met_goal": val_acc_pct > 94.45, "train_tmacs": 0.2 * depth}
    write_json(folder / "result.json", run)
    made_by = {"code_hash": "5bd0a44d15ece2ca", "start": f"day {depth}", "seconds": 10.1, "data_sha256": "04a7"}
    write_json(folder / "provenance.json", made_by)
    (folder / "depths.csv").write_text(f"depth,size_mb,tag,epochs,val_acc_pct\n{depth},0.30,w16,2,{val_acc_pct}\n")
    epochs = f"1,{depth},80.10,{0.1 * depth}\n2,{depth},{val_acc_pct},{0.2 * depth}\n"
    (folder / "epochs.csv").write_text(f"epoch,depth,val_acc_pct,train_tmacs\n{epochs}")
    (folder / "timing.csv").write_text(f"epoch,seconds\n1,{depth}.10\n2,5.0\n")
    (folder / f"depth0{depth}.safetensors").touch()


@pytest.mark.slow
def test_a_run_keeps_its_numbers_and_is_todays_run(tmp_path, capsys):
    runs = tmp_path / "quick/runs"
    for name in ("first-w16", "unfinished"):
        old_run(runs / name, "released", 1, 95.5, depth_epochs=9, finetune_epochs=3, full_epochs=4)
    (runs / "unfinished/result.json").unlink()
    write_json(tmp_path / "quick/reuse.json", {"studies": [{"protocol": "released", "search": "first-w16"}]})
    migrate.main(tmp_path)
    recipe = recipes.resolve("emnist", "odn", "quick", "released", width=16, depth_epochs=9)
    folder = experiment.folder_of_run(recipe, tmp_path)
    assert experiment.status_of_run(recipe, folder) == "finished"
    run = recipes.read_run(folder)
    assert (run.rule, run.test_acc_pct, run.changed) == ("released", 90, recipe.overridden)
    assert not {"protocol", "tag", "thop_macs_m"} & vars(run).keys()
    assert (folder / "depths.csv").read_text() == "depth,size_mb,epochs,val_acc_pct\n1,0.30,2,95.5\n"
    assert read_json(tmp_path / "quick/reuse.json")["studies"] == [{"rule": "released", "search": recipe.name}]
    assert "unfinished: left as it is" in capsys.readouterr().out


@pytest.mark.slow
def test_depths_alone_are_joined_and_only_the_chosen_one_shows_its_test_accuracy(tmp_path):
    runs = tmp_path / "quick/runs"
    for name, depth, val_acc_pct, seed in [("a", 2, 94.47, 0), ("b", 3, 95.2, 0), ("c", 2, 94.6, 1)]:
        old_run(runs / name, "fast", depth, val_acc_pct, seed)
    migrate.main(tmp_path)
    old_run(runs / "d", "fast", 1, 93.0)
    old_run(runs / "twice", "fast", 1, 94.9, first_epochs=16)
    old_run(runs / "whole", "fast", 8, 96.0, variant="full", first_depth=1)
    migrate.main(tmp_path)
    results = {file.parent.name: read_json(file)["test_acc_pct"] for file in runs.glob("*/result.json")}
    label, whole = "emnist-odn-equal-width_16", "emnist-full-equal-width_16-seed0"
    shown = {f"{label}-seed0": 90, f"{label}-first_depth_2-last_depth_2-seed1": 91, whole: 90}
    left_out = [f"{label}-first_depth_3-last_depth_3-seed0", f"{label}-last_depth_1-depth_epochs_16-seed0"]
    assert results == shown | dict.fromkeys(left_out)
    run = recipes.read_run(folder := runs / f"{label}-seed0")
    assert (run.depth, run.met_goal, run.epochs, run.first_depth, run.last_depth) == (2, True, 4, 1, 8)
    assert (folder / "epochs.csv").read_text().endswith("2,1,93.0,0.2\n3,2,80.10,0.4\n4,2,94.47,0.6000000000000001\n")
    assert (folder / "timing.csv").read_text() == "epoch,seconds\n1,1.10\n2,5.0\n3,2.10\n4,5.0\n"
    assert migrate.cells(folder / "depths.csv")["epochs"].tolist() == list("22000000")
    assert [part["start"] for part in read_json(folder / "provenance.json")["joined_from"]] == ["day 1", "day 2"]
    assert len(list(folder.glob("depth*.safetensors"))) == 2
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    migrate.main(tmp_path)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
