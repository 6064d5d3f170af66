"""One run's folder: what is in it, when it is redone, and what the command line says."""

import re
import shutil
import subprocess
from functools import partial

import pandas as pd
import pytest
import torch

from odnlib import checkpoint, experiment, files, recipes, trainer
from odnlib.__main__ import main
from odnlib.files import RunConflict, read_json, write_json
from tests.conftest import contents, tiny, tiny_recipe

FULL = tiny_recipe("full")


@pytest.fixture
def finished(tmp_path):
    """Folder of a finished run of FULL."""
    return experiment.run(FULL, tiny, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "rule"), [("odn", "released"), ("full", "released"), ("odn", "equal")])
def test_interrupted_after_any_epoch_writes_the_same_files(variant, rule, tmp_path):
    """As if killed after every single epoch in turn, and gone on with."""
    recipe, copies = tiny_recipe(variant, rule=rule, rate=0.1), []

    def as_if_killed_here(_, record):
        copies.append(shutil.copytree(tmp_path / "whole", tmp_path / str(record["epoch"])))

    whole = experiment.run(recipe, tiny, tmp_path / "whole", [as_if_killed_here])
    assert len(copies) == len(pd.read_csv(whole / "timing.csv"))
    for place in copies:
        resumed = experiment.run(recipe, tiny, place)
        assert contents(resumed) == contents(whole)
        assert len(pd.read_csv(resumed / "timing.csv")) == len(copies)


def test_what_a_run_leaves_behind(tmp_path):
    heard = []
    recipe = tiny_recipe()
    folder = experiment.run(recipe, tiny, tmp_path, [lambda _, record: heard.append(record)])
    assert folder == tmp_path / "smoke" / "runs" / recipe.name
    assert {path.stem for path in folder.glob("*.safetensors")} == {"depth01", "depth02", "network"}
    epochs, depths = pd.read_csv(folder / "epochs.csv"), pd.read_csv(folder / "depths.csv")
    result, made_by = read_json(folder / "result.json"), read_json(folder / "provenance.json")
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
    assert made_by["data_sha256"]["test"] == tiny().test.sha256()


def test_listeners_may_be_given_as_a_generator(finished, tmp_path):
    heard, told = [], [[], []]
    for recipe, more in ((FULL, {}), (FULL, {"fresh": True})):  # drawn from its folder, and trained
        listeners = ((lambda _, record, to=to: to.append(record["epoch"])) for to in told)
        experiment.run(recipe, tiny, tmp_path, listeners, **more)
        heard.append([list(to) for to in told])
    assert heard == [[[1, 2]] * 2, [[1, 2, 1, 2]] * 2]


def test_the_threads_of_a_run_do_not_outlive_it(tmp_path):
    """As in a kernel where one run has `threads=2`, and the next says nothing."""
    folders = [experiment.run(tiny_recipe("full", threads=threads), tiny, tmp_path) for threads in (2, None)]
    assert [read_json(folder / "provenance.json")["threads"] for folder in folders] == [2, 1]
    assert torch.get_num_threads() == 1


def test_an_ended_run_keeps_tables_and_networks_alone(tmp_path):
    folder = experiment.folder_of_run(tiny_recipe(), tmp_path)
    (folder / ".ipynb_checkpoints").mkdir(parents=True)  # Jupyter's, where somebody has looked into the folder
    (folder / ".DS_Store").touch()
    (folder / ".epochs.csv.4711").touch()  # half-written by a process that was killed
    experiment.run(tiny_recipe(), tiny, tmp_path)
    (folder / "checkpoint.pt").touch()  # as if killed before it was removed
    experiment.run(tiny_recipe(), tiny, tmp_path)
    tables = {"recipe.json", "epochs.csv", "depths.csv", "result.json", "timing.csv", "status.json", "provenance.json"}
    networks = {"depth01.safetensors", "depth02.safetensors", "network.safetensors"}
    assert {x.name for x in folder.iterdir()} == tables | networks | {"log.txt", ".ipynb_checkpoints", ".DS_Store"}


def test_the_commit_of_another_repository_is_not_taken_for_ours(tmp_path, monkeypatch):
    """A copy without .git somewhere in somebody's thesis, ignored there or committed; GIT_DIR in the environment."""
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    copy = tmp_path / "tools" / "odn"
    (copy / "odnlib").mkdir(parents=True)
    (copy / "odnlib" / "models.py").touch()
    commit = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-m"]
    for number, added in enumerate([[], ["."]]):
        git(["git", "init"])
        git(["git", "add", *added])
        git([*commit, str(number), "--allow-empty"])
        monkeypatch.setattr(files, "ROOT", copy)
        made_by = files.collect_provenance("cpu", {})
        assert (made_by["commit"], made_by["code_unchanged_since_commit"]) == (None, False)
        monkeypatch.setattr(files, "ROOT", tmp_path)
        monkeypatch.setenv("GIT_DIR", "/nonexistent")
        assert len(files.collect_provenance("cpu", {})["commit"]) == 40
        monkeypatch.delenv("GIT_DIR")


def test_provenance_names_the_gpu_that_computes(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: f"GPU {str(device).partition(':')[2] or 0}")
    named = [files.collect_provenance(device, {})["device"] for device in ("cpu", "cuda", "cuda:1")]
    assert named == ["cpu", "GPU 0", "GPU 1"]


def test_training_macs_are_three_forward_passes_per_image(finished):
    result = read_json(finished / "result.json")
    assert result["train_tmacs"] == pytest.approx(3 * result["macs_m"] * 1e6 * 70 * 2 / 1e12)


def test_a_finished_run_is_not_run_again_nor_its_images_loaded(finished, tmp_path):
    before, heard = contents(finished), []
    listeners = [lambda _, record: heard.append(record)]
    assert experiment.run(FULL, lambda: pytest.fail("images were loaded"), tmp_path, listeners) == finished
    assert contents(finished) == before
    assert len(heard) == len(pd.read_csv(finished / "epochs.csv"))


def test_a_run_of_another_training_version_is_refused_and_kept(finished, tmp_path, monkeypatch):
    before = contents(finished)
    monkeypatch.setattr(files, "TRAINING_VERSION", 999)
    assert experiment.status_of_run(FULL, finished) == "stale"
    with pytest.raises(RunConflict, match=r"was made otherwise \(training version: there 1, today 999\).*--fresh"):
        experiment.run(FULL, tiny, tmp_path)
    experiment.run(FULL, tiny, tmp_path, fresh=True)
    assert contents(finished.with_name(f"{finished.name}.replaced1")) == before


def test_fewer_settings_and_no_version_are_those_of_then(finished):
    made_by, recorded = (read_json(finished / f"{name}.json") for name in ("provenance", "recipe"))
    write_json(finished / "provenance.json", {k: v for k, v in made_by.items() if k != "training_version"})
    write_json(finished / "recipe.json", {k: v for k, v in recorded.items() if k != "nesterov"})
    assert experiment.status_of_run(FULL, finished) == "finished"
    write_json(finished / "recipe.json", recorded | {"nesterov": True})
    assert experiment.status_of_run(FULL, finished) == "stale"


def test_a_run_of_a_rule_that_is_gone_can_be_read(finished):
    for path in (finished / "recipe.json", finished / "result.json"):
        write_json(path, read_json(path) | {"rule": "fast", "changed": {"threads": 1}})
    run = recipes.read_run(finished)
    assert (run.rule, run.label, run.goal_pct, run.depth) == ("fast", "threads 1", 100.0, 3)


def test_a_diverged_run_keeps_what_was_good(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY_SECONDS", 0.0)
    arguments = ["run", "--row=mnist", "--variants=full", f"--results-dir={tmp_path}"]
    settings = {"width": 8, "train_images": 64, "batch_size": 8, "last_depth": 1, "full_epochs": 60}
    settings |= {"rate": 10, "momentum": 1.0, "weight_decay": 1.0}
    message = r"the loss is not finite in whole network, epoch \d+.*smaller rate"
    assert main([*arguments, *(f"--set={name}={value}" for name, value in settings.items())]) == 1
    assert re.search(f"odnlib: {message}", capsys.readouterr().err)
    recipe = recipes.resolve("mnist", "full", **settings)
    folder = experiment.folder_of_run(recipe, tmp_path)
    kept = checkpoint.read_checkpoint(folder)
    assert all(tensor.isfinite().all() for name, tensor in kept["network"].items() if name.endswith("weight"))
    assert 1 <= len(kept["records"]) <= len(pd.read_csv(folder / "epochs.csv"))
    assert experiment.status_of_run(recipe, folder) == "partial"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--row", "imagenet"], 2, "row 'imagenet' does not exist: choose one of mnist, emnist"),
        (["--set", "target_pct=101"], 2, "target_pct 101 is not a number from 0 to 100"),
        (["--set", "depht=3"], 2, "there is no parameter 'depht': choose from"),
        (["--device", "tpu"], 2, "device 'tpu' is not here: use auto, cpu"),
        (["--variants", ""], 2, "variant '' does not exist: choose one of odn, full"),
        (["--variants", "half"], 2, "variant 'half' does not exist: choose one of odn, full"),
        (["--profile=paper", "--data-dir", __file__], 1, f"data_dir {__file__} cannot be read: File exists; pass"),
        (["--results-dir", __file__], 1, f"{__file__}"),
    ],
)
def test_command_line_refuses_in_one_line(arguments, code, message, tmp_path, capsys):
    assert main(["run", "--row", "mnist", "--results-dir", str(tmp_path), *arguments]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"odnlib: {message}")
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.glob("*/runs/[!.]*")) == []


def test_augmentation_is_a_setting(tmp_path):
    """Training images are shifted as the recipe says; by default as the dataset has it, here not at all."""
    losses = {}
    for name, asked in {"usual": {}, "none": {"crop_padding": 0, "flip": False}, "some": {"crop_padding": 2}}.items():
        folder = experiment.run(tiny_recipe("full", **asked), tiny, tmp_path)
        losses[name] = pd.read_csv(folder / "epochs.csv")["train_loss"]
    assert losses["usual"].equals(losses["none"])
    assert not losses["usual"].equals(losses["some"])
