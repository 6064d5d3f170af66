"""Killed, starved, fed rubbish: nothing lost, nothing wrong, and a word on what to do."""

import http.server
import os
import pickle
import random
import re
import resource
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from odnlib import checkpoint, experiment, trainer
from odnlib.__main__ import main
from odnlib.data import DataError, load
from odnlib.files import ROOT, RunConflict, read_json, write_json
from odnlib.recipes import resolve
from odnlib.search import find_depth
from tests import children
from tests.conftest import loader, tiny_recipe, tiny_run

REPRODUCIBLE = ("recipe.json", "epochs.csv", "depths.csv", "result.json")
STEADY = {"rate": 0.1, "batch_size": 24, "last_depth": 2, "depth_epochs": 3, "finetune_epochs": 3, "patience": 9}
SMALL = ["--row", "mnist", *(x for s in ("width=8", "train_images=200", "last_depth=2") for x in ("--set", s))]


def contents(folder):
    files = [*REPRODUCIBLE, *(path.name for path in sorted(folder.glob("*.safetensors")))]
    return {name: (folder / name).read_bytes() for name in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a run that nothing disturbed."""
    return experiment.run(tiny_recipe(**STEADY), children.tiny, tmp_path_factory.mktemp("whole"))


def finish(results_dir):
    process = children.start(children.train, results_dir, 0.0, None, STEADY)
    process.join(120)
    assert process.exitcode == 0
    return experiment.run_folder(tiny_recipe(**STEADY), results_dir)


@pytest.mark.slow
def test_killed_at_random_instants_and_resumed(whole, tmp_path):
    """30 SIGKILLs, several per run, with a checkpoint after every step; the same bytes in the end."""
    finish(tmp_path / "first")  # waits for the server of children, too
    start = time.monotonic()
    finish(tmp_path / "second")
    seconds = time.monotonic() - start
    instants, kills, runs = random.Random(0), 0, 0
    while kills < 30:
        runs += 1
        for _ in range(4):
            process = children.start(children.train, tmp_path / str(runs), 0.0, None, STEADY)
            process.join(instants.uniform(0.1, 0.6 * seconds))
            if process.is_alive():
                process.kill()
                kills += 1
            process.join()
        assert contents(finish(tmp_path / str(runs))) == contents(whole), f"run {runs}"


@pytest.mark.slow
def test_killed_between_write_and_rename(whole, tmp_path):
    for renames in (1, 2, 3, 4, 5, 6, 20, 31, 42, 53):
        process = children.start(children.train, tmp_path / str(renames), 0.0, renames, STEADY)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert contents(finish(tmp_path / str(renames))) == contents(whole), renames


@pytest.mark.slow
def test_interrupted_by_hand_it_says_one_kind_line(tmp_path):
    """Ctrl-C is a kill like any other, but for the word that it leaves; the same command goes on."""
    arguments = ["run", *SMALL, "--results-dir", tmp_path, "--set", "depth_epochs=400", "--set", "patience=400"]
    process = children.start(children.command, [str(x) for x in arguments], tmp_path / "said", {}, None)
    wait_for(lambda: list(tmp_path.glob("smoke/runs/*/epochs.csv")))
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    said = "odnlib: interrupted; what was trained is kept, and the same command goes on from there"
    assert (tmp_path / "said").read_text().splitlines()[-1] == said


def wait_for(look, seconds=60):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_run(tmp_path):
    arguments = ["run", *SMALL, "--results-dir", str(tmp_path), "--set", "depth_epochs=400", "--set", "patience=400"]
    first = children.start(children.command, arguments, tmp_path / "first", {}, None)
    wait_for(lambda: list(tmp_path.glob("smoke/runs/*/epochs.csv")))
    code, said = children.run_command(arguments, tmp_path / "second")
    assert code == 75
    assert f"is being worked on by process {first.pid} on " in said
    assert "nothing was done here" in said
    first.kill()
    first.join()
    third = children.start(children.command, arguments, tmp_path / "third", {}, None)
    (epochs,) = tmp_path.glob("smoke/runs/*/epochs.csv")  # the lock file is still there, and holds nobody up
    before = epochs.stat().st_mtime_ns
    wait_for(lambda: epochs.stat().st_mtime_ns > before)
    third.kill()
    third.join()


@pytest.mark.slow
def test_whoever_waits_takes_over(tiny_data, tmp_path, caplog):
    recipe = tiny_recipe()
    folder = experiment.run_folder(recipe, tmp_path)
    children.start(children.hold, folder, 1.0)
    wait_for(lambda: list(folder.parent.glob("*.holder.lock")))
    experiment.run(recipe, loader(tiny_data), tmp_path)
    assert "waiting for it to end" in caplog.text
    assert experiment.status(recipe, folder) == "finished"


@pytest.fixture
def kept(tiny_data, tmp_path):
    """A folder with the checkpoints after two and after three epochs."""

    def stop(_, record):
        if record["epoch"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_depth(tiny_run(tiny_recipe(), tiny_data, tmp_path, [stop]))
    return tmp_path


def test_a_corrupt_byte_anywhere_falls_back(kept, caplog):
    newest = kept / checkpoint.NEWEST
    good = newest.read_bytes()
    for position in range(0, len(good), len(good) // 49):
        newest.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert len(checkpoint.read(kept)["records"]) == 2, position
        assert not newest.exists()  # it would take the place of the good one
    assert caplog.text.count("is damaged: going on from what was kept before it") >= 50
    newest.write_bytes(good[: len(good) // 2])
    assert len(checkpoint.read(kept)["records"]) == 2
    newest.write_bytes(good)
    assert len(checkpoint.read(kept)["records"]) == 3


@pytest.mark.slow
def test_damaged_checkpoints_cost_time_but_no_bytes(whole, tmp_path):
    process = children.start(children.train, tmp_path, 0.0, 50, STEADY)
    process.join(120)
    for name in (checkpoint.NEWEST, checkpoint.BEFORE):
        path = experiment.run_folder(tiny_recipe(**STEADY), tmp_path) / name
        path.write_bytes(path.read_bytes()[:-1])
    assert contents(finish(tmp_path)) == contents(whole)


class CreatesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_checkpoint_is_not_run(kept, tmp_path, caplog):
    checkpoint.write(kept, {"stage": CreatesAFile(tmp_path / "created")})
    content = pickle.dumps(CreatesAFile(tmp_path / "created"))
    states = [(kept / checkpoint.NEWEST).read_bytes()[32:], content]
    for state in states:
        (kept / checkpoint.NEWEST).write_bytes(checkpoint.hashlib.sha256(state).digest() + state)
        assert len(checkpoint.read(kept)["records"]) == 3
    assert not (tmp_path / "created").exists()
    assert "is damaged" in caplog.text


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path):
    """The largest file that may be written has 50 kB; checkpoints and the network itself have more."""
    arguments = ["run", *SMALL, "--variants", "full", "--results-dir", tmp_path, "--set", "full_epochs=3"]
    code, said = children.run_command(
        [*arguments, "--set", "width=32"], tmp_path / "x", {resource.RLIMIT_FSIZE: 50_000}
    )
    assert code == 1
    assert "File too large; what was kept before is whole: make room" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("smoke/runs/*/.*"))  # no half-written file
    assert main([*map(str, arguments), "--set", "width=32"]) == 0


@pytest.mark.slow
def test_results_that_cannot_be_written(tmp_path):
    place = tmp_path / "locked"
    place.mkdir(mode=0o555)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    nobody = 65534 if os.getuid() == 0 else None  # root may write anywhere
    if nobody and not all(path.stat().st_mode & 0o001 for path in ROOT.parents):
        pytest.skip("user nobody cannot enter the folder that the repository lies in")
    said = tmp_path / "said"
    said.touch()
    code, said = children.run_command(["run", *SMALL, "--results-dir", place / "results"], said, user=nobody)
    assert code == 1
    assert f"odnlib: {place}" in said
    assert "Permission denied" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_out_of_memory_says_where(tmp_path):
    """The network of width 512 needs more than the 2 GB beyond what the process has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    arguments = ["run", *SMALL, "--results-dir", tmp_path, "--variants", "full", "--set", "batch_size=1024"]
    settings = ["--set", "width=256", "--set", "train_images=1000", "--set", "validation_images=10"]
    code, said = children.run_command([*arguments, *settings], tmp_path / "x", {resource.RLIMIT_AS: used + 2 * 10**9})
    assert code == 1, said
    assert "cpu has not the memory for batches of 1024 at depth 2: try a smaller batch_size or width" in said
    assert "Traceback" not in said


def test_a_truncated_dataset_is_named_with_its_checksum(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b" + 100 * b"x")
    with pytest.raises(DataError) as refusal:
        load(resolve("mnist", profile="paper"), tmp_path)
    expected = "train-images-idx3-ubyte.gz is damaged (its md5 should be f68b3c2dcbeaaa9fbdd348bbdeb94873): delete it"
    assert expected in str(refusal.value)


def refuse(*_, **__):
    raise OSError("Name or service not known")


class Cut(http.server.BaseHTTPRequestHandler):
    """Promises 10 MB, sends 1,000 bytes and hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "10000000")
        self.end_headers()
        self.wfile.write(1000 * b"x")

    def log_message(self, *_):
        pass


def test_a_download_that_is_cut(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        with pytest.raises(DataError) as refusal:
            load(resolve("mnist", profile="paper"), tmp_path)
        server.shutdown()
    assert str(tmp_path) in str(refusal.value)
    assert "download" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_another_thread_count_is_accepted_with_a_warning(tiny_data, tmp_path, caplog):
    recipe, folder = interrupted(tiny_data, tmp_path)
    torch.set_num_threads(2)
    try:
        experiment.run(recipe, loader(tiny_data), tmp_path)
    finally:
        torch.set_num_threads(1)
    assert "was begun with another threads: the bytes may differ" in caplog.text
    (changed,) = read_json(folder / "provenance.json")["continued_with_other"]
    assert changed["threads"] == [1, 2]


def interrupted(data, results_dir):
    recipe = tiny_recipe(threads=None)

    def stop(_, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(recipe, loader(data), results_dir, [stop])
    return recipe, experiment.run_folder(recipe, results_dir)


def test_other_images_are_not_mixed_in(tiny_data, tmp_path):
    recipe, _ = interrupted(tiny_data, tmp_path)
    tiny_data.train.images[0] += 1
    with pytest.raises(RunConflict, match="was begun with other images"):
        experiment.run(recipe, loader(tiny_data), tmp_path)


def test_another_recipe_in_the_folder_is_shown(tiny_data, tmp_path):
    recipe, folder = interrupted(tiny_data, tmp_path)
    recorded = read_json(folder / "recipe.json")
    write_json(folder / "recipe.json", recorded | {"momentum": 0.5})
    with pytest.raises(RunConflict, match=r"momentum: there 0.5, wanted 0.9.*start over with --fresh"):
        experiment.run(recipe, loader(tiny_data), tmp_path)


def test_a_line_a_minute_in_the_log(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_EVERY", 0.0)
    folder = experiment.run(tiny_recipe(), loader(tiny_data), tmp_path)
    assert re.search(r"depth 2, epoch 1.*, 23 % of its images", (folder / "log.txt").read_text())


@pytest.mark.slow
def test_no_flood_where_nobody_watches(tmp_path):
    code, said = children.run_command(["run", *SMALL, "--results-dir", tmp_path / "results"], tmp_path / "said")
    assert code == 0
    assert len(said.splitlines()) <= 4
    assert "\r" not in said


def test_short_epochs_share_a_checkpoint(tiny_data, tmp_path, monkeypatch):
    """A run of seconds is not saved after each of its epochs; what was not saved is done again."""
    monkeypatch.setattr(trainer, "SAVES_APART", 60.0)
    written = []
    monkeypatch.setattr(checkpoint, "write", lambda folder, state: written.append(state))
    experiment.run(tiny_recipe(), loader(tiny_data), tmp_path)
    assert written == []
