"""Killed, starved, fed rubbish: nothing lost, nothing wrong, and a word on what to do."""

import multiprocessing
import os
import pickle
import random
import re
import resource
import signal
import threading
import time
from itertools import count
from pathlib import Path

import pytest

from odnlib import checkpoint, experiment, files, trainer
from odnlib.__main__ import main
from odnlib.architectures import ARCHITECTURES, basic_block, resnet_architecture
from odnlib.files import RunConflict, read_json, write_json
from tests import children
from tests.conftest import Killed, contents, killed_after, tiny, tiny_recipe, wait_for

STEADY = tiny_recipe(rate=0.1, batch_size=24, last_depth=2)
SMALL = ["run", "--row=mnist", "--set=width=8", "--set=train_images=200", "--set=last_depth=2"]
LONG = [*SMALL, "--set=depth_epochs=400", "--set=patience=400"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that nothing disturbed leaves behind."""
    return contents(experiment.run(STEADY, tiny, tmp_path_factory.mktemp("whole")))


@pytest.mark.slow
def test_killed_at_random_instants_and_resumed(whole, tmp_path):
    """30 SIGKILLs, several per run, with a checkpoint after every step; the same bytes in the end."""
    for place in (tmp_path / "first", tmp_path / "second"):  # the first waits for the server of children, too
        start = time.monotonic()
        children.start(children.train, STEADY, place).join(120)
        seconds = time.monotonic() - start
    instants, kills, runs = random.Random(0), 0, 0
    while kills < 30:
        runs += 1
        place = tmp_path / f"run {runs}"
        for _ in range(6):
            process = children.start(children.train, STEADY, place)
            process.join(instants.uniform(0.2 * seconds, 0.5 * seconds))
            kills += process.is_alive()
            process.kill()
            process.join()
        assert contents(experiment.run(STEADY, tiny, place)) == whole, place.name


@pytest.mark.slow
def test_killed_between_every_write_and_its_rename(tmp_path, monkeypatch):
    """SIGKILL in place of each rename of a run in turn, until a run ends before there are so many."""
    monkeypatch.setitem(ARCHITECTURES, "two_blocks", resnet_architecture(basic_block, 1, (1, 1)))
    limits = dict.fromkeys(("warmup_epochs", "depth_epochs", "finetune_epochs"), 1)
    brief = tiny_recipe(architecture="two_blocks", last_depth=2, batch_size=35, **limits)
    whole = contents(experiment.run(brief, tiny, tmp_path / "whole"))
    for rename in count(1):
        place = tmp_path / str(rename)
        process = multiprocessing.get_context("fork").Process(target=children.train, args=(brief, place, rename))
        process.start()
        process.join(120)
        assert contents(experiment.run(brief, tiny, place)) == whole
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert rename > 30


@pytest.mark.slow
def test_interrupted_by_hand_it_says_one_kind_line(tmp_path):
    """Ctrl-C is a kill like any other, but for the word that it leaves; the same command goes on."""
    process = children.start(children.command, [*LONG, f"--results-dir={tmp_path}"], tmp_path / "output")
    wait_for(lambda: list(tmp_path.glob("smoke/runs/*/epochs.csv")))
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    message = "odnlib: interrupted; what was trained is kept, and the same command goes on from there"
    assert (tmp_path / "output").read_text().splitlines()[-1] == message


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_run(tmp_path):
    arguments = [*LONG, f"--results-dir={tmp_path}"]
    first = children.start(children.command, arguments, tmp_path / "first")
    (epochs,) = wait_for(lambda: list(tmp_path.glob("smoke/runs/*/epochs.csv")))
    code, output = children.run_command(arguments, tmp_path / "second")
    assert code == 75
    assert f"is being worked on by process {first.pid} on " in output
    assert "nothing was done here" in output
    first.kill()
    first.join()
    third = children.start(children.command, arguments, tmp_path / "third")
    before = epochs.stat().st_mtime_ns  # the lock file is still there, and holds nobody up
    wait_for(lambda: epochs.stat().st_mtime_ns > before)
    third.kill()
    third.join()


@pytest.mark.slow
def test_whoever_waits_takes_over(tmp_path, caplog):
    folder = experiment.folder_of_run(STEADY, tmp_path)
    second = threading.Thread(target=experiment.run, args=(STEADY, tiny, tmp_path))
    with files.lock_folder(folder, wait=False):
        second.start()
        wait_for(lambda: "waiting for it to end" in caplog.text)
        second.join(1.0)
        assert experiment.status_of_run(STEADY, folder) == "missing"
    second.join()
    assert experiment.status_of_run(STEADY, folder) == "finished"


def until_killed(results_dir, images=tiny):
    """Train, or go on training, until the process is gone after four epochs."""
    with pytest.raises(Killed):
        experiment.run(STEADY, images, results_dir, [killed_after(4)])


@pytest.fixture
def interrupted(tmp_path):
    """Folder of a run that was gone after four epochs, with the checkpoints after two and after three."""
    until_killed(tmp_path)
    return experiment.folder_of_run(STEADY, tmp_path)


@pytest.mark.slow
def test_a_corrupt_byte_anywhere_falls_back(interrupted, caplog):
    newest = interrupted / checkpoint.NEWEST_FILE
    good = newest.read_bytes()
    for position in range(0, len(good), len(good) // 49):
        newest.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert len(checkpoint.read_checkpoint(interrupted)["records"]) == 2, position
        assert not newest.exists()  # it would take the place of the good one
    assert caplog.text.count("is damaged: going on from what was kept before it") >= 50
    newest.write_bytes(good[: len(good) // 2])
    assert len(checkpoint.read_checkpoint(interrupted)["records"]) == 2
    newest.write_bytes(good)
    assert len(checkpoint.read_checkpoint(interrupted)["records"]) == 3


def test_damaged_checkpoints_cost_time_but_no_bytes(interrupted, whole, tmp_path):
    for path in (interrupted / checkpoint.NEWEST_FILE, interrupted / checkpoint.PREVIOUS_FILE):
        path.write_bytes(path.read_bytes()[:-1])
    assert contents(experiment.run(STEADY, tiny, tmp_path)) == whole


def test_a_malicious_checkpoint_is_not_run(interrupted, tmp_path, caplog):
    class CreatesAFile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/created",)

    newest = interrupted / checkpoint.NEWEST_FILE
    checkpoint.write_checkpoint(interrupted, {"stage": CreatesAFile()})
    for state in (newest.read_bytes()[32:], pickle.dumps(CreatesAFile())):
        newest.write_bytes(checkpoint.hashlib.sha256(state).digest() + state)
        assert len(checkpoint.read_checkpoint(interrupted)["records"]) == 3
    assert not (tmp_path / "created").exists()
    assert "is damaged" in caplog.text


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path):
    """The largest file that may be written has 50 kB; checkpoints and the network itself have more."""
    arguments = [*SMALL, "--variants=full", f"--results-dir={tmp_path}", "--set=full_epochs=3", "--set=width=32"]
    code, output = children.run_command(arguments, tmp_path / "output", {resource.RLIMIT_FSIZE: 50_000})
    assert code == 1
    assert "File too large; what was kept before is whole: make room" in output
    assert not list(tmp_path.glob("smoke/runs/*/.*"))  # no half-written file
    assert main(arguments) == 0


def test_results_that_cannot_be_written(tmp_path, capsys):
    tmp_path.chmod(0o555)
    for path in (parent for parent in tmp_path.parents if "pytest" in str(parent)):
        path.chmod(0o755)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may write anywhere, nobody may not
    try:
        assert main([*SMALL, f"--results-dir={tmp_path}/results"]) == 1
    finally:
        os.seteuid(user)
    told = capsys.readouterr().err
    assert f"odnlib: {tmp_path}/results: Permission denied; what was kept before is whole: mend it or" in told


@pytest.mark.slow
def test_out_of_memory_says_where(tmp_path):
    """The network needs more than the 2 GB beyond what the process has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    settings = {"batch_size": 1024, "width": 256, "train_images": 500, "validation_images": 10}
    arguments = [*SMALL, "--variants=full", f"--results-dir={tmp_path}"]
    arguments += [f"--set={name}={value}" for name, value in settings.items()]
    code, output = children.run_command(arguments, tmp_path / "output", {resource.RLIMIT_AS: used + 2 * 10**9})
    assert code == 1, output
    assert "cpu has not the memory for batches of 1024 at depth 2: try a smaller batch_size or width" in output


def test_another_thread_count_is_accepted_with_a_warning(interrupted, tmp_path, caplog):
    made_by = read_json(interrupted / "provenance.json")
    write_json(interrupted / "provenance.json", made_by | {"threads": 7})
    until_killed(tmp_path)
    assert "was begun with another threads: the bytes may differ" in caplog.text
    (changed,) = read_json(interrupted / "provenance.json")["continued_with_other"]
    assert changed["threads"] == [7, 1]


def test_other_images_are_not_mixed_in(interrupted, tmp_path):
    data = tiny()
    data.train.images[0] += 1
    with pytest.raises(RunConflict, match="was begun with other images"):
        until_killed(tmp_path, lambda: data)


def test_another_recipe_in_the_folder_is_shown(interrupted, tmp_path):
    recorded = read_json(interrupted / "recipe.json")
    write_json(interrupted / "recipe.json", recorded | {"momentum": 0.5})
    with pytest.raises(RunConflict, match=r"momentum: there 0.5, wanted 0.9.*start over with --fresh"):
        until_killed(tmp_path)


def test_a_line_a_minute_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_EVERY_SECONDS", 0.0)
    folder = experiment.run(tiny_recipe(), tiny, tmp_path)
    assert re.search(r"depth 2, epoch 1.*, 23 % of its images", (folder / "log.txt").read_text())


@pytest.mark.slow
def test_no_flood_where_nobody_watches(tmp_path):
    code, output = children.run_command([*SMALL, "--set=patience=5", f"--results-dir={tmp_path}"], tmp_path / "output")
    assert code == 0
    assert len(output.splitlines()) <= 4
    assert "\r" not in output


def test_short_epochs_share_a_checkpoint(tmp_path, monkeypatch):
    """A run of seconds is not saved after each of its epochs; what was not saved is done again."""
    monkeypatch.setattr(trainer, "MIN_SECONDS_BETWEEN_SAVES", 60.0)
    monkeypatch.setattr(checkpoint, "write_checkpoint", lambda *_: pytest.fail("a checkpoint was written"))
    experiment.run(tiny_recipe(), tiny, tmp_path)
