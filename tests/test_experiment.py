"""One run's folder: what is in it, when it is redone, and what the command line says."""

import json

import pandas as pd
import pytest

from odnlib import checkpoint, experiment, files, recipes
from odnlib.__main__ import main
from odnlib.files import RunConflict, read_json, write_json
from odnlib.recipes import RecipeError
from odnlib.trainer import TrainingDiverged
from tests.conftest import loader, tiny_recipe

REPRODUCIBLE = ("recipe.json", "epochs.csv", "depths.csv", "result.json")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in REPRODUCIBLE}


class Interruption(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["odn", "full"])
def test_interrupted_after_any_epoch_writes_the_same_files(variant, tiny_data, tmp_path):
    recipe = tiny_recipe(variant, rate=0.1)
    whole = experiment.run(recipe, loader(tiny_data), tmp_path / "whole")
    for epochs in range(1, len(pd.read_csv(whole / "epochs.csv")) + 1):

        def stop(_, record, epochs=epochs):
            if record["epoch"] == epochs:
                raise Interruption

        with pytest.raises(Interruption):
            experiment.run(recipe, loader(tiny_data), tmp_path / str(epochs), [stop])
        resumed = experiment.run(recipe, loader(tiny_data), tmp_path / str(epochs))
        assert contents(resumed) == contents(whole)
        assert len(pd.read_csv(resumed / "timing.csv")) == len(pd.read_csv(whole / "timing.csv"))


def test_what_a_run_leaves_behind(tiny_data, tmp_path):
    heard = []
    recipe = tiny_recipe()
    folder = experiment.run(recipe, loader(tiny_data), tmp_path, [lambda _, record: heard.append(record)])
    assert folder == tmp_path / "smoke" / "runs" / recipe.name
    epochs, depths = pd.read_csv(folder / "epochs.csv"), pd.read_csv(folder / "depths.csv")
    result, made_by = (json.loads((folder / f"{name}.json").read_text()) for name in ("result", "provenance"))
    pd.testing.assert_frame_equal(pd.DataFrame(heard), epochs)
    assert depths["depth"].tolist() == [1, 2, 3]
    assert depths["epochs"].tolist() == [2, 2, 2]
    assert depths.query("chosen")["depth"].tolist() == [result["depth"]] == [3]
    assert depths["warmup_val_acc_pct"].notna().all()
    assert depths.loc[2, "params"] == result["params"]
    assert result["test_images"] == 30
    assert result["val_acc_pct"] == epochs[epochs["depth"] == 3]["val_acc_pct"].max()
    assert made_by["training_version"] == files.TRAINING_VERSION
    assert read_json(folder / "status.json")["where"] == "fine-tuning 3, 2.0 of 2 epochs"
    assert {"commit", "versions", "processor", "threads", "start", "seconds", "train_tmacs"} <= made_by.keys()
    assert made_by["data_sha256"]["test"] == tiny_data.test.sha256()


def test_training_macs_are_three_forward_passes_per_image(tiny_data, tmp_path):
    recipe = tiny_recipe("full", full_epochs=2)
    folder = experiment.run(recipe, loader(tiny_data), tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert result["train_tmacs"] == pytest.approx(3 * result["macs_m"] * 1e6 * 70 * 2 / 1e12)


def test_a_finished_run_is_not_run_again(tiny_data, tmp_path, monkeypatch):
    recipe = tiny_recipe()
    folder = experiment.run(recipe, loader(tiny_data), tmp_path)
    before, heard = contents(folder), []
    monkeypatch.setattr(experiment, "Run", None)
    assert experiment.run(recipe, loader(tiny_data), tmp_path, [lambda _, record: heard.append(record)]) == folder
    assert contents(folder) == before
    assert len(heard) == len(pd.read_csv(folder / "epochs.csv"))


def test_a_run_of_another_training_version_is_refused_and_kept(tiny_data, tmp_path, monkeypatch):
    recipe = tiny_recipe("full")
    folder = experiment.run(recipe, loader(tiny_data), tmp_path)
    before = contents(folder)
    monkeypatch.setattr(files, "TRAINING_VERSION", 999)
    assert experiment.status(recipe, folder) == "stale"
    with pytest.raises(RunConflict, match=r"was made otherwise \(training version: there 1, today 999\).*--fresh"):
        experiment.run(recipe, loader(tiny_data), tmp_path)
    experiment.run(recipe, loader(tiny_data), tmp_path, fresh=True)
    assert contents(folder.with_name(f"{folder.name}.replaced1")) == before


def test_fewer_settings_and_no_version_are_those_of_then(tiny_data, tmp_path):
    recipe = tiny_recipe("full")
    folder = experiment.run(recipe, loader(tiny_data), tmp_path)
    made_by, recorded = (read_json(folder / f"{name}.json") for name in ("provenance", "recipe"))
    write_json(folder / "provenance.json", {k: v for k, v in made_by.items() if k != "training_version"})
    write_json(folder / "recipe.json", {k: v for k, v in recorded.items() if k != "nesterov"})
    assert experiment.status(recipe, folder) == "finished"
    write_json(folder / "recipe.json", recorded | {"nesterov": True})
    assert experiment.status(recipe, folder) == "stale"


def test_images_are_loaded_only_where_something_is_left(tiny_data, tmp_path):
    recipe = tiny_recipe("full")
    experiment.run(recipe, loader(tiny_data), tmp_path)
    experiment.run(recipe, lambda: pytest.fail("images were loaded"), tmp_path)


def test_a_run_of_a_rule_that_is_gone_can_be_read(tiny_data, tmp_path):
    folder = experiment.run(tiny_recipe("full"), loader(tiny_data), tmp_path)
    for name in ("recipe", "result"):
        write_json(
            folder / f"{name}.json", read_json(folder / f"{name}.json") | {"rule": "fast", "changed": {"threads": 1}}
        )
    run = recipes.read(folder)
    assert (run.rule, run.label, run.goal_pct, run.depth) == ("fast", "threads 1", 100.0, 3)


def test_a_diverged_run_keeps_what_was_good(tiny_data, tmp_path):
    recipe = tiny_recipe("full", rate=10.0, weight_decay=1.0, momentum=1.0, full_epochs=200, patience=500)
    with pytest.raises(TrainingDiverged):
        experiment.run(recipe, loader(tiny_data), tmp_path)
    folder = experiment.run_folder(recipe, tmp_path)
    epochs = pd.read_csv(folder / "epochs.csv")
    assert len(epochs) >= 1
    assert len(checkpoint.read(folder)["records"]) <= len(epochs)
    assert experiment.status(recipe, folder) == "partial"


def test_unknown_device():
    with pytest.raises(RecipeError, match="device 'tpu' is not here: use auto, cpu"):
        experiment.choose_device("tpu")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--row", "imagenet"], 2, "row 'imagenet' does not exist: choose one of mnist"),
        (["--set", "first_depth=0"], 2, "first_depth 0 is not a whole number from 1"),
        (["--set", "last_depth=99"], 2, "last_depth 99 does not exist: resnet18 has depths 1 to 8"),
        (["--set", "target_pct=101"], 2, "target_pct 101 is not a number from 0 to 100"),
        (["--set", "depht=3"], 2, "there is no parameter 'depht': choose from"),
        (["--device", "tpu"], 2, "device 'tpu' is not here"),
        (["--variants", ""], 2, "variant '' does not exist: choose one of odn, full"),
        (["--variants", "half"], 2, "variant 'half' does not exist: choose one of odn, full"),
        (["--profile", "paper", "--data-dir", __file__], 1, f"data_dir {__file__} cannot be read"),
    ],
)
def test_command_line_refuses_in_one_line(arguments, code, said, tmp_path, capsys):
    assert main(["run", "--row", "mnist", "--results-dir", str(tmp_path), *arguments]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"odnlib: {said}")
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.glob("*/runs/[!.]*")) == []


def test_results_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    settings = ["--set", "width=8", "--set", "train_images=64"]
    assert main(["run", "--row", "mnist", "--results-dir", str(tmp_path / "file"), *settings]) == 1
    shown = capsys.readouterr().err
    assert str(tmp_path / "file") in shown
    assert len(shown.splitlines()) == 1


def test_command_line_diverged(tmp_path, capsys):
    settings = "width=8 train_images=64 batch_size=8 rate=10 momentum=1.0 weight_decay=1.0 last_depth=1 full_epochs=60"
    arguments = [x for setting in settings.split() for x in ("--set", setting)]
    assert main(["run", "--row", "mnist", "--variants", "full", "--results-dir", str(tmp_path), *arguments]) == 1
    assert "odnlib: the loss is not finite in whole network, epoch" in capsys.readouterr().err
