"""run_all.sh and the notebooks, as a user starts them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

import run_all
from odnlib.__main__ import guarded
from odnlib.__main__ import main as train
from odnlib.files import ROOT, write_json

TINY = "width=8 train_images=64 last_depth=2 warmup_epochs=1 depth_epochs=1 finetune_epochs=1 full_epochs=1"
SETTINGS = [word for setting in TINY.split() for word in ("--set", setting)]
LONGER = [*SETTINGS, "--set", "full_epochs=40", "--set", "patience=99"]


def start(*arguments):
    return subprocess.run([str(ROOT / "run_all.sh"), *map(str, arguments)], capture_output=True, text=True, timeout=600)


def launch(*arguments):
    return guarded(run_all.run, run_all.parser().parse_args([*map(str, arguments)]))


def planned(*arguments):
    return run_all.plan(run_all.parser().parse_args(arguments))[0]


def wait_for(look, seconds=240):
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def epochs_of(results_dir, variant):
    return sum(
        len(x.read_text().splitlines()) - 1 for x in results_dir.glob(f"smoke/runs/mnist-{variant}-*/epochs.csv")
    )


def toy(folder, number, source):
    """A notebook of two cells."""
    cells = [nbformat.v4.new_code_cell("seed = 0"), nbformat.v4.new_code_cell(source)]
    cells[0].metadata.tags = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / f"{number}.ipynb")
    return folder / f"{number}.ipynb"


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    """The MNIST row in seconds through run_all.sh, papermill and a kernel."""
    folder = tmp_path_factory.mktemp("results")
    return folder, start("--rows", "mnist", "--results-dir", folder, *SETTINGS)


def test_run_all_writes_runs_figures_and_the_executed_notebook(regenerated):
    folder, shown = regenerated
    assert shown.returncode == 0, shown.stdout + shown.stderr
    runs = sorted((folder / "smoke" / "runs").glob("mnist-*"))
    assert [run.name.split("-")[1] for run in runs] == ["full", "odn"]
    assert all((run / name).exists() for run in runs for name in ("epochs.csv", "depths.csv", "result.json"))
    assert list((folder / "smoke" / "figures").glob("*.png"))
    assert all((folder / "smoke" / name).exists() for name in ("table1.csv", "comparison.csv", "report.html"))
    (executed,) = (folder / "smoke" / "notebooks").glob("01_mnist_resnet18-*.ipynb")
    assert "size reduction (%)" in executed.read_text()
    assert "done: 01_mnist_resnet18" in shown.stdout


def test_second_time_nothing_is_trained(regenerated):
    folder, _ = regenerated
    before = {path: path.stat().st_mtime_ns for path in folder.glob("smoke/runs/*/*")}
    assert start("--rows", "mnist", "--results-dir", folder, *SETTINGS).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("smoke/runs/*/*")} == before


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--rows", "imagenet"], ["rows: there is no 'imagenet'; choose from mnist, emnist"]),
        (["--seeds", "0,0"], ["seeds: [0, 0] name one twice"]),
        (["--seeds", "x", "--rows", "mnist,mnist"], ["rows: ['mnist', 'mnist'] name one", "seed 'x' is not a whole"]),
        (
            ["--only", "77", "--set", "width=1"],
            ["only: there is no '77'; choose from 01, 02", "width 1 is not a whole"],
        ),
        (["--only", "06", "--set", "with=3"], ["there is no parameter 'with': did you mean 'width'?"]),
        (["--only", "06", "--set", "seed=3"], ["there is no parameter 'seed'"]),
        (["--profile", "big"], ["profile 'big' does not exist"]),
        (["--device", "tpu"], ["device 'tpu' is not here"]),
        (["--jobs", "0"], ["jobs '0': cpu has room for 1 to "]),
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
    assert launch("--results-dir", tmp_path / "file" / "results") == 1
    assert capsys.readouterr().err.startswith(f"odnlib: {tmp_path / 'file'}")


@pytest.mark.parametrize("path", run_all.NOTEBOOKS.values(), ids=lambda path: path.stem)
def test_notebooks_are_committed_clean(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "parameters" in code[0].metadata.tags
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 15


def test_row_notebooks_differ_only_in_their_parameters_and_prose():
    code = {}
    for number, row in run_all.ROW_NOTEBOOKS.items():
        cells = [cell for cell in nbformat.read(run_all.NOTEBOOKS[number], 4).cells if cell.cell_type == "code"]
        assert cells[0].source.startswith(f'row = "{row}"')
        code[row] = [cells[0].source.replace(row, "ROW"), *(cell.source for cell in cells[1:])]
    assert all(cells == code["mnist"] for cells in code.values())


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ([], "01 02 03 04 05 06 07 09 10 11 12 13"),  # the benchmark wants an idle machine
        (["--seeds", "0,1,2"], "01 01 01 02 02 02 03 03 03 04 04 04 05 05 05 06 07 09 10 11 12 13"),
        (["--rows", "svhn"], "04 07"),
        (["--only", "3,08"], "03 08"),
        (["--profile", "quick"], "01 02 03 04 05 07"),  # by `equal`, which has no warm-up to leave out
        (["--profile", "paper"], "01 02 03 04 05 06 07"),
    ],
)
def test_which_notebooks_are_executed(arguments, numbers):
    assert [job.source.stem[:2] for job in planned(*arguments)] == numbers.split()


def test_a_notebook_is_given_what_it_has_and_keeps_what_nobody_said():
    arguments = ["--rows", "mnist,svhn,emnist", "--seeds", "3", "--set", "train_images=64", "--only"]
    row, comparison = planned(*arguments, "1,7")
    assert row.executed.name == "01_mnist_resnet18-released-train_images_64-seed3.ipynb"
    assert row.parameters.items() >= {"row": "mnist", "seed": 3, "overrides": {"train_images": 64}}.items()
    assert set(comparison.parameters) == {"profile", "results_dir"}
    trend, own, families, reuse = (job.parameters for job in planned(*arguments, "9,10,11,13"))
    assert trend["rows"] == ["mnist", "svhn", "emnist"]
    assert (own["seed"], own["overrides"]) == (3, {})  # somebody's own images are all used
    assert (families["row"], families["seeds"], families["overrides"]["target_pct"]) == ("mnist", [3], 75.0)
    assert ("svhn", "mnist") in reuse["pairs"]
    assert not {"rule", "seeds", "row"} & set(planned("--only", "06")[0].parameters)
    assert planned("--only", "9", "--profile", "reduced")[0].parameters["architectures"] == ["", "resnet18"]


def test_fresh_sets_the_rows_runs_aside_or_all_of_smoke(monkeypatch, tmp_path):
    monkeypatch.setattr(run_all, "execute", lambda *_: None)
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
    slots_for = run_all.slots_for
    assert slots_for("auto", "cuda", None) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("3", "GPU-7f", "5")]
    assert slots_for("2", "cuda", 4) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "GPU-7f"}]
    assert slots_for("auto", "cpu", 1) == [{"OMP_NUM_THREADS": "1"}] * 8
    assert slots_for("3", "cpu", None) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert slots_for("auto", "cpu", None) == slots_for("1", "cpu", None) == [{}]
    for jobs, device in (("4", "cuda"), ("9", "cpu"), ("2", "cuda:1"), ("-1", "cpu"), ("two", "cpu")):
        with pytest.raises(run_all.recipes.RecipeError, match="has room for 1 to"):
            slots_for(jobs, device, None)


@pytest.mark.slow
def test_side_by_side_some_fail_and_the_comparison_comes_last(monkeypatch, tmp_path, capsys):
    """In two slots, where TMPDIR is too long for sockets: a cell raises, a kernel dies, the others name their slot."""
    (tmp_path / ("long" * 30)).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(run_all, "REPORT_EVERY", 2)
    source = "import os, time\nstart = time.time(); time.sleep(1)\nprint(os.environ['SLOT'], start, time.time())"
    failing = {"06": "def broken():\n    return 1 / 0\n\nbroken()", "09": "import os\nos.kill(os.getpid(), 9)"}
    toys = {number: toy(tmp_path, number, failing.get(number, source)) for number in ("06", "07", "09", "11", "12")}
    monkeypatch.setattr(run_all, "NOTEBOOKS", toys)
    monkeypatch.setattr(run_all, "slots_for", lambda *_: [{"SLOT": "a"}, {"SLOT": "b"}])
    status = tmp_path / "smoke" / "runs" / "some-run" / "status.json"
    status.parent.mkdir(parents=True)
    write_json(status, {"where": "depth 3, 2.5 of 9 epochs"})
    os.utime(status, (time.time() + 600,) * 2)  # as if it were written all the time
    assert launch("--results-dir", tmp_path, "--only", "06,07,09,11,12") == 1
    shown = capsys.readouterr().out
    where, raised = "some-run: depth 3, 2.5 of 9 epochs", "ZeroDivisionError: division by zero"
    assert all(text in shown for text in (where, raised, "return 1 / 0", "DeadKernelError"))
    assert "\x1b" not in shown
    executed = {x.stem: nbformat.read(x, 4).cells[-1].outputs for x in (tmp_path / "smoke" / "notebooks").iterdir()}
    assert executed["06"][-1].ename == "ZeroDivisionError"  # what there is of it is kept
    slots = {number: executed[number][0].text.split() for number in ("07", "11", "12")}
    assert slots["07"][1] >= max(slots["11"][2], slots["12"][2])
    for name in "ab":
        times = sorted((began, ended) for slot, began, ended in slots.values() if slot == name)
        assert all(before[1] <= after[0] for before, after in pairwise(times))


def processes_with(marker: str) -> list[int]:
    """All that inherited this environment variable, kernels too."""
    holding = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
            holding += [int(path.parent.name)] if marker.encode() in path.read_bytes() else []
    return holding


@pytest.mark.slow
def test_killed_in_mid_run_and_begun_again_it_ends_in_the_same_files(tmp_path):
    """SIGKILL to all processes at once; then to the launcher alone; then Ctrl-C: no process is left, no epoch lost."""
    train(["run", "--row", "mnist", "--results-dir", str(tmp_path / "whole"), *LONGER])
    arguments = ["--only", "01", "--results-dir", str(tmp_path / "killed"), *LONGER]
    for number, epochs in enumerate((2, 8, 14)):
        marker = f"{tmp_path}-{number}"
        command = [sys.executable, str(ROOT / "run_all.py"), *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"ODN_TEST": marker})
        wait_for(lambda epochs=epochs: epochs_of(tmp_path / "killed", "full") > epochs)
        for pid in processes_with(marker) if number == 0 else [process.pid]:
            os.kill(pid, signal.SIGINT if number == 2 else signal.SIGKILL)
        _, told = process.communicate(timeout=60)
        wait_for(lambda marker=marker: not processes_with(marker), seconds=20)
    assert process.returncode == 130
    assert told.startswith("odnlib: interrupted; what was trained is kept, and the same command goes on")
    assert not list((tmp_path / "killed").glob("smoke/runs/mnist-full*/result.json"))
    assert start(*arguments).returncode == 0
    for folder in (tmp_path / "whole").glob("smoke/runs/mnist-*"):
        for name in ("recipe.json", "epochs.csv", "depths.csv", "result.json", "network.safetensors"):
            twin = tmp_path / "killed" / folder.relative_to(tmp_path / "whole") / name
            assert twin.read_bytes() == (folder / name).read_bytes(), twin


def test_help_needs_no_environment(tmp_path):
    for name in ("run_all.sh", "run_all.py"):
        shutil.copy(ROOT / name, tmp_path)
    shown = subprocess.run([str(tmp_path / "run_all.sh"), "--help"], capture_output=True, text=True, timeout=60)
    options = [action.option_strings[-1] for action in run_all.parser()._actions]
    assert all(option in shown.stdout for option in [*options, "--setup-only"])
    assert not (tmp_path / ".venv").exists()


PYTHON = f'exec {sys.executable} "$@"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ({}, "no Python 3.11 to 3.14 found on PATH: install one"),
        ({"python3": "exit 1"}, "no Python 3.11 to 3.14 found on PATH: install one"),
        ({"python3": f'[[ "$*" == *ensurepip* ]] && exit 1; {PYTHON}'}, "python3 has no venv module: install it"),
        ({"python3": PYTHON, "df": "echo; echo / 9000000 8000000 1000000 90% /"}, "the packages need 8 GB, and"),
        (
            {"python3": PYTHON, "uv": "echo error: failed to connect >&2; exit 2"},
            "the packages could not be installed, the package index cannot be reached: connect to the network",
        ),
    ],
)
def test_set_up_says_what_is_missing(commands, reason, tmp_path):
    """run_all.sh --setup-only in a bare copy, where each of `commands` is a small script in place of the real one."""
    clone, bin_ = tmp_path / "clone", tmp_path / "bin"
    clone.mkdir()
    bin_.mkdir()
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    for name in {"bash", "dirname", "cmp", "df", "awk", "rm", "cp", "mv", "grep", "tail", "env"} - set(commands):
        (bin_ / name).symlink_to(shutil.which(name))
    for name, script in commands.items():
        (bin_ / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (bin_ / name).chmod(0o755)
    environment = {"PATH": str(bin_), "HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    command = [str(clone / "run_all.sh"), "--setup-only"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert shown.returncode == 1
    assert shown.stderr.startswith(f"run_all.sh: {reason}"), shown.stderr
    assert len(shown.stderr.splitlines()) == 1
