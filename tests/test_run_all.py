"""run_all.sh and the notebooks, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

import run_all
import run_show
from odnlib.__main__ import main as train
from odnlib.__main__ import run_command
from odnlib.files import ROOT
from tests.conftest import wait_for

TINY = "width=8 train_images=64 last_depth=2 warmup_epochs=1 depth_epochs=1 finetune_epochs=1 full_epochs=1"
SETTINGS = [f"--set={setting}" for setting in TINY.split()]
LONGER = [*SETTINGS, "--set=full_epochs=200", "--set=patience=999"]  # long enough to be kept on the way


def start(*arguments):
    return subprocess.run([str(ROOT / "run_all.sh"), *map(str, arguments)], capture_output=True, text=True, timeout=600)


def launch(*arguments):
    return run_command(run_all.run_notebooks, run_all.build_parser().parse_args([*map(str, arguments)]))


def planned(*arguments):
    return run_all.plan_jobs(run_all.build_parser().parse_args(arguments))[0]


def epochs_kept(results_dir, row="mnist"):
    """How many epochs a row's whole network has had since it was first kept on the way."""
    kept = [file.with_name("epochs.csv") for file in results_dir.glob(f"smoke/runs/{row}-full-*/checkpoint.pt")]
    return sum(len(file.read_text().splitlines()) - 1 for file in kept if file.exists())


def assert_same_runs(whole, other):
    for folder in whole.glob("smoke/runs/*-seed0"):
        for name in ("recipe.json", "epochs.csv", "depths.csv", "result.json", "network.safetensors"):
            twin = other / folder.relative_to(whole) / name
            assert twin.read_bytes() == (folder / name).read_bytes(), twin


def toy(path, source):
    """A notebook of two cells."""
    sources = {"seed = 0": ["parameters"], source: []}
    cells = [nbformat.v4.new_code_cell(code, metadata={"tags": tags}) for code, tags in sources.items()]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.mark.slow
def test_a_row_and_the_comparison_and_the_second_time_nothing_is_trained(tmp_path):
    """In seconds through run_all.sh, papermill and a kernel."""
    arguments, smoke = ["--rows", "mnist", "--results-dir", tmp_path, *SETTINGS], tmp_path / "smoke"
    shown = start(*arguments)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    runs = {path: path.stat().st_mtime_ns for path in smoke.glob("runs/mnist-*/*")}
    assert len([path for path in runs if path.name == "result.json"]) == 2
    assert all(list(smoke.glob(name)) for name in ("figures/*.png", "table1.csv", "comparison.csv"))
    (executed,) = smoke.glob("notebooks/01_mnist_resnet18-*-seed0.ipynb")
    assert "size reduction (%)" in executed.read_text()
    assert "Claims" in (smoke / "report.html").read_text()
    assert str(smoke / "report.html") in shown.stdout
    assert start(*arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in smoke.glob("runs/mnist-*/*")} == runs


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--rows", "imagenet"], ["rows: there is no 'imagenet'; choose from mnist, emnist"]),
        (["--seeds", "0,0"], ["seeds: [0, 0] name one twice"]),
        (["--seeds", "x", "--rows", "mnist,mnist"], ["rows: ['mnist', 'mnist'] name one", "seed 'x' is not a whole"]),
        (["--only", "77", "--set", "width=1"], ["only: there is no '77'; choose from 01", "width 1 is not a whole"]),
        (["--only", "06", "--set", "with=3"], ["there is no parameter 'with': did you mean 'width'?"]),
        (["--profile", "big"], ["profile 'big' does not exist"]),
        (["--device", "tpu"], ["device 'tpu' is not here"]),
        (["--jobs", "0"], ["jobs '0': cpu has room for 1 to "]),
        (["--images", "nowhere"], ["images and target belong together", "images 'nowhere': there is no folder"]),
        (["--images", "nowhere", "--target", "0.8%"], ["images 'nowhere'", "target 0.8: it is a percentage, above"]),
        (["--set", "last_depth=9"], ["last_depth 9 does not exist: resnet18 has depths 1 to 8"]),
    ],
)
def test_refused_before_any_notebook_starts(arguments, lines, capsys, tmp_path):
    assert launch("--results-dir", tmp_path, *arguments) == 2
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"odnlib: {expected}") for line, expected in zip(told, lines, strict=True))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").touch()
    for option in ("--results-dir", "--data-dir"):
        assert launch("--profile", "paper", "--results-dir", tmp_path, option, tmp_path / "file" / "folder") == 1
        assert capsys.readouterr().err.startswith(f"odnlib: {tmp_path / 'file'}")


def test_which_notebooks_are_executed():
    expected = {
        "": "01 02 03 04 05 06 07 09 10 11 12 13 14",  # the benchmark wants an idle machine
        "--rows svhn --seeds 0,1,2": "04 04 04 07",
        "--only 3,08": "03 08",
        "--profile quick": "01 02 03 04 05 07",  # by `equal`, which has no warm-up to leave out
        "--profile paper": "01 02 03 04 05 06 07",
    }
    for arguments, numbers in expected.items():
        assert [job.source.stem[:2] for job in planned(*arguments.split())] == numbers.split()


def test_a_notebook_is_given_what_it_has_and_keeps_what_nobody_said():
    arguments = ["--rows", "mnist,svhn,emnist", "--seeds", "3", "--set", "train_images=64", "--only"]
    row, comparison = planned(*arguments, "1,7")
    assert row.executed.name == "01_mnist_resnet18-released-train_images_64-seed3.ipynb"
    assert row.parameters.items() >= {"row": "mnist", "seed": 3, "overrides": {"train_images": 64}}.items()
    assert set(comparison.parameters) == {"profile", "results_dir"}
    trend, own, families, reuse = (job.parameters for job in planned(*arguments, "9,10,11,13"))
    assert trend["rows"] == ["mnist", "svhn", "emnist"]
    assert (own["seed"], own["overrides"]) == (3, {})  # somebody's own images are all used
    assert (families["row"], families["seeds"], families["overrides"]) == ("mnist", [3], {"train_images": 64})
    assert ("svhn", "mnist") in reuse["pairs"]
    assert not {"rule", "seeds", "row"} & set(planned("--only", "06")[0].parameters)
    studies = planned("--fresh", "--only", "6,8,9,11,12,13")
    assert all(job.parameters["since"].startswith("20") for job in studies), "older runs start over"
    assert planned("--only", "9", "--profile", "reduced")[0].parameters["architectures"] == ["", "resnet18"]


def test_a_task_of_an_array_runs_the_notebook_of_its_number(tmp_path):
    """Any of them, those that train own images or compress too, on the machine that Slurm gives, with all options."""
    (tmp_path / "run_all.sh").write_text('#!/usr/bin/env bash\nprintf "%s " "$@"\n')
    (tmp_path / "run_all.sh").chmod(0o755)
    for number in run_all.NOTEBOOKS:
        task = os.environ | {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_TASK_ID": str(int(number))}
        command = ["bash", ROOT / "notebooks" / "array.sbatch", "--profile", "quick"]
        shown = subprocess.run(command, env=task, capture_output=True, text=True, check=True).stdout.split()
        assert shown == ["--only", str(int(number)), "--profile", "quick"]
        assert [job.source.stem[:2] for job in planned(*shown)] == [number]


def test_fresh_sets_the_rows_runs_aside_or_all_of_smoke(monkeypatch, tmp_path):
    monkeypatch.setattr(run_all, "execute_jobs", lambda *_: None)
    folders = [tmp_path / "smoke" / "runs" / f"mnist-{name}-released-seed0" for name in ("odn", "full", "odn-other")]
    for arguments, left in (["--rows", "mnist"], folders[2:]), ([], []):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        launch("--results-dir", tmp_path, *arguments)
        assert all(folder.exists() for folder in folders)
        launch("--results-dir", tmp_path, "--fresh", *arguments)
        assert [folder for folder in folders if folder.exists()] == left


def test_slots_are_gpus_or_cores_and_no_two_share_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f,5")
    monkeypatch.setattr(run_all.torch, "get_num_threads", lambda: 8)
    divide = run_all.divide_devices
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in divide("auto", "cuda", None)] == ["3", "GPU-7f", "5"]
    assert divide("auto", "cpu", 1) == [{"OMP_NUM_THREADS": "1"}] * 8
    assert divide("3", "cpu", None) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert divide("auto", "cpu", None) == divide("1", "cpu", None) == [{}]
    for jobs, device in (("4", "cuda"), ("9", "cpu"), ("2", "cuda:1"), ("-1", "cpu"), ("two", "cpu")):
        with pytest.raises(run_all.recipes.RecipeError, match="has room for 1 to"):
            divide(jobs, device, None)


@pytest.mark.slow
def test_side_by_side_some_fail_and_the_comparison_comes_last(monkeypatch, tmp_path, capsys):
    """In two slots, where TMPDIR is too long for sockets: a cell raises, a kernel dies, the others name their slot."""
    (tmp_path / ("long" * 30)).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(run_show, "REPORT_EVERY_SECONDS", 2)
    source = "import os, time\nstart = time.time(); time.sleep(1)\nprint(os.environ['SLOT'], start, time.time())"
    failing = {"06": "def broken():\n    return 1 / 0\n\nbroken()", "09": "import os\nos.kill(os.getpid(), 9)"}
    numbers = ("06", "07", "09", "11", "12")
    toys = {number: toy(tmp_path / f"{number}.ipynb", failing.get(number, source)) for number in numbers}
    monkeypatch.setattr(run_all, "NOTEBOOKS", toys)
    monkeypatch.setattr(run_all, "divide_devices", lambda *_: [{"SLOT": "a"}, {"SLOT": "b"}])
    status = tmp_path / "smoke" / "runs" / "some-run" / "status.json"
    status.parent.mkdir(parents=True)
    now = {
        "where": "depth 3, 2.5 of 9 epochs",
        "notebook": "12",
        "val_acc_pct": 41.2,
        "seconds_left": 70.4,
        "stage_epochs": 2.5,
    }
    status.write_text(json.dumps(now))
    status.with_name("recipe.json").write_text('{"row": "mnist", "architecture": "resnet18"}')
    os.utime(status, (time.time() + 600,) * 2)  # as if it were written all the time
    assert launch("--results-dir", tmp_path, "--only", ",".join(numbers)) == 1
    shown = capsys.readouterr().out
    told = "12 seed = 0: mnist with resnet18, depth 3, 2.5 of 9 epochs, 41.2 % right, 01:10 left of this training"
    for text in (
        told,
        "of 5, less than a minute left",
        "failed: 06 seed = 0, ",
        "return 1 / 0",
        "ZeroDivisionError: division by zero",
        "DeadKernelError",
    ):
        assert text in shown
    executed = {x.stem: nbformat.read(x, 4).cells[-1].outputs for x in (tmp_path / "smoke" / "notebooks").iterdir()}
    assert executed["06"][-1].ename == "ZeroDivisionError"  # what there is of it is kept
    slots = {number: executed[number][0].text.split() for number in ("07", "11", "12")}
    assert slots["07"][1] >= max(slots["11"][2], slots["12"][2])
    assert {slot for slot, *_ in slots.values()} <= {"a", "b"}


def processes_with(marker):
    """All that inherited this environment variable, kernels too."""
    command = f"grep -ls '{marker}' /proc/[0-9]*/environ"
    files = subprocess.run(command, shell=True, capture_output=True, text=True).stdout
    return [int(file.split("/")[2]) for file in files.split()]


@pytest.mark.slow
def test_killed_in_mid_run_and_begun_again_it_ends_in_the_same_files(tmp_path):
    """SIGKILL to all processes at once, then to the launcher alone, then Ctrl-C: none is left over, nothing is lost."""
    train(["run", "--row", "mnist", "--results-dir", str(tmp_path / "whole"), *LONGER])
    arguments = ["--only", "01", "--results-dir", str(tmp_path / "killed"), *LONGER]
    for number in range(3):
        kept = epochs_kept(tmp_path / "killed")  # more of them within two seconds the faster the machine
        marker = f"{tmp_path}-{number}"
        command = [sys.executable, str(ROOT / "run_all.py"), *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"ODN_TEST": marker})
        wait_for(lambda kept=kept: epochs_kept(tmp_path / "killed") > kept, seconds=240)
        for pid in processes_with(marker) if number == 0 else [process.pid]:
            os.kill(pid, signal.SIGINT if number == 2 else signal.SIGKILL)
        _, told = process.communicate(timeout=60)
        wait_for(lambda marker=marker: not processes_with(marker), seconds=20)
    assert process.returncode == 130
    assert told.startswith("odnlib: interrupted; what was trained is kept, and the same command goes on")
    assert start(*arguments).returncode == 0
    assert_same_runs(tmp_path / "whole", tmp_path / "killed")
    (log,) = (tmp_path / "killed").glob("smoke/runs/mnist-full-*/log.txt")
    assert log.read_text().count("goes on after") == 3
