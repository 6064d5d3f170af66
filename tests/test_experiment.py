"""One run's folder: what is in it, when it is redone, and what the command line says."""

import json

import pandas as pd
import pytest

from odnlib import checkpoint, experiment, results
from odnlib.__main__ import main
from odnlib.recipes import RecipeError
from odnlib.results import RunConflict
from odnlib.trainer import TrainingDiverged
from tests.conftest import tiny_recipe

REPRODUCIBLE = ("recipe.json", "epochs.csv", "depths.csv", "result.json")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in REPRODUCIBLE}


class Interruption(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["odn", "full"])
def test_interrupted_after_any_epoch_writes_the_same_files(variant, tiny_data, tmp_path):
    recipe = tiny_recipe(variant, rate=0.1)
    whole = experiment.run(recipe, tiny_data, tmp_path / "whole")
    for epochs in range(1, len(pd.read_csv(whole / "epochs.csv")) + 1):

        def stop(_, record, epochs=epochs):
            if record["epoch"] == epochs:
                raise Interruption

        with pytest.raises(Interruption):
            experiment.run(recipe, tiny_data, tmp_path / str(epochs), [stop])
        resumed = experiment.run(recipe, tiny_data, tmp_path / str(epochs))
        assert contents(resumed) == contents(whole)
        assert len(pd.read_csv(resumed / "timing.csv")) == len(pd.read_csv(whole / "timing.csv"))


def test_what_a_run_leaves_behind(tiny_data, tmp_path):
    heard = []
    recipe = tiny_recipe()
    folder = experiment.run(recipe, tiny_data, tmp_path, [lambda _, record: heard.append(record)])
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
    assert made_by["code_hash"] == results.code_hash(embedded=True)
    assert {"commit", "versions", "processor", "threads", "start", "seconds", "train_tmacs"} <= made_by.keys()
    assert made_by["data_sha256"]["test"] == tiny_data.test.sha256()


def test_training_macs_are_three_forward_passes_per_image(tiny_data, tmp_path):
    recipe = tiny_recipe("full", full_epochs=2)
    folder = experiment.run(recipe, tiny_data, tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert result["train_tmacs"] == pytest.approx(3 * result["macs_m"] * 1e6 * 70 * 2 / 1e12)


def test_a_finished_run_is_not_run_again(tiny_data, tmp_path, monkeypatch):
    recipe = tiny_recipe()
    folder = experiment.run(recipe, tiny_data, tmp_path)
    before, heard = contents(folder), []
    monkeypatch.setattr(experiment, "Training", None)
    assert experiment.run(recipe, tiny_data, tmp_path, [lambda _, record: heard.append(record)]) == folder
    assert contents(folder) == before
    assert len(heard) == len(pd.read_csv(folder / "epochs.csv"))


def test_a_run_of_other_code_is_refused_and_kept(tiny_data, tmp_path, monkeypatch):
    recipe = tiny_recipe("full")
    folder = experiment.run(recipe, tiny_data, tmp_path)
    before = contents(folder)
    monkeypatch.setattr(results, "code_hash", lambda embedded: "another")
    assert results.status(recipe, folder) == "stale"
    with pytest.raises(RunConflict, match=r"was made by other training code or settings .*today another.*--fresh"):
        experiment.run(recipe, tiny_data, tmp_path)
    experiment.run(recipe, tiny_data, tmp_path, fresh=True)
    assert contents(folder.with_name(f"{folder.name}.replaced1")) == before


def test_earlier_code_and_fewer_settings_of_the_same_bytes_are_finished(tiny_data, tmp_path, monkeypatch):
    recipe = tiny_recipe("full")
    folder = experiment.run(recipe, tiny_data, tmp_path)
    made_by, recorded = (results.read_json(folder / f"{name}.json") for name in ("provenance", "recipe"))
    results.write_json(folder / "provenance.json", made_by | {"code_hash": "earlier"})
    assert results.status(recipe, folder) == "stale"
    monkeypatch.setattr(results, "SAME_BYTES", {"earlier": "compared"})
    assert results.status(recipe, folder) == "finished"
    results.write_json(folder / "recipe.json", {k: v for k, v in recorded.items() if k != "nesterov"})
    assert results.status(recipe, folder) == "finished"
    results.write_json(folder / "recipe.json", recorded | {"nesterov": True})
    assert results.status(recipe, folder) == "stale"


def test_a_diverged_run_keeps_what_was_good(tiny_data, tmp_path):
    recipe = tiny_recipe("full", rate=10.0, weight_decay=1.0, momentum=1.0, full_epochs=200, patience=500)
    with pytest.raises(TrainingDiverged):
        experiment.run(recipe, tiny_data, tmp_path)
    folder = results.run_folder(recipe, tmp_path)
    epochs = pd.read_csv(folder / "epochs.csv")
    assert len(epochs) >= 1
    assert checkpoint.read(folder)["stage_epoch"] == len(epochs)
    assert results.status(recipe, folder) == "partial"


def test_code_hash_is_of_what_the_code_does(tmp_path, monkeypatch):
    source = '"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n'
    hashes = []
    for text in (source, source.replace("Doc", "Other").replace("# why", "# because"), source.replace("1", "2")):
        (tmp_path / "code.py").write_text(text)
        monkeypatch.setattr(results, "TRAINING_CODE", (str(tmp_path / "code.py"),))
        hashes.append(results.code_hash(embedded=False))
    assert hashes[0] == hashes[1] != hashes[2]


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
        (["--variants", ""], 2, "variants '' name none: choose from odn, full"),
        (["--variants", "half"], 2, "variant 'half' does not exist: choose one of odn, full"),
        (["--profile", "paper", "--data-dir", __file__], 1, f"data_dir {__file__} cannot be read"),
    ],
)
def test_command_line_refuses_in_one_line(arguments, code, said, tmp_path, capsys):
    assert main(["run", "--row", "mnist", "--results-dir", str(tmp_path), *arguments]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"odnlib: {said}")
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


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
    assert "odnlib: the loss is not finite in stage full, depth 1, epoch" in capsys.readouterr().err
