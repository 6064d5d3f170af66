"""run_all.sh and the notebooks, as a user starts them."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import psutil
import pytest

from odnlib import ROOT, results
from odnlib.__main__ import main
from odnlib.notebooks import plan, runner

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = "width=8 train_images=64 last_depth=2 warmup_epochs=1 depth_epochs=1 finetune_epochs=1 full_epochs=1"
SETTINGS = [x for setting in QUICK.split() for x in ("--set", setting)]
QUICK_ARGUMENTS = ["--rows", "mnist", *SETTINGS]


def run_all(*arguments, **environment):
    command = [str(ROOT / "run_all.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    """The MNIST row in seconds through run_all.sh, papermill and a kernel."""
    folder = tmp_path_factory.mktemp("results")
    return folder, run_all("--results-dir", str(folder), *QUICK_ARGUMENTS)


def test_run_all_writes_runs_figures_and_the_executed_notebook(regenerated):
    folder, shown = regenerated
    assert shown.returncode == 0, shown.stdout + shown.stderr
    runs = sorted((folder / "smoke" / "runs").glob("mnist-*"))
    assert [run.name.split("-")[1] for run in runs] == ["full", "odn"]
    assert all((run / name).exists() for run in runs for name in ("epochs.csv", "depths.csv", "result.json"))
    assert len(list((folder / "smoke" / "figures").glob("*.png"))) == 5
    assert all((folder / "smoke" / name).exists() for name in ("table1.csv", "comparison.csv", "report.html"))
    (executed,) = (folder / "smoke" / "notebooks").glob("01_mnist_resnet18-*.ipynb")
    text = executed.read_text()
    assert "no reproduction" in text
    assert "size reduction (%)" in text
    assert "done: 01_mnist_resnet18" in shown.stdout


def test_second_time_everything_is_there(regenerated):
    folder, _ = regenerated
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    shown = run_all("--results-dir", str(folder), *QUICK_ARGUMENTS)
    assert shown.returncode == 0
    assert "done before: 01_mnist_resnet18" in shown.stdout
    assert "done before: 07_compare_with_paper" in shown.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before


@pytest.mark.slow
def test_a_failure_is_named_and_the_rest_goes_on(tmp_path):
    """Seed 1 finds a file where its run's folder should be. Of seed 0 one run is there, made without a notebook: it is
    picked up as it is, and only the missing one is trained.
    """
    arguments = ["--row", "mnist", "--variants", "odn", "--results-dir", str(tmp_path)]
    assert main(["run", *arguments, *SETTINGS]) == 0
    (there,) = (tmp_path / "smoke" / "runs").glob("mnist-*-seed0")
    before = {path: path.stat().st_mtime_ns for path in there.iterdir()}
    (tmp_path / "smoke" / "runs" / f"mnist-odn-released-{main_tag()}-seed1").write_text("in the way")
    shown = run_all("--results-dir", str(tmp_path), "--seeds", "1,0", *QUICK_ARGUMENTS)
    assert shown.returncode == 1
    assert "failed: 01_mnist_resnet18" in shown.stdout
    assert "Error" in shown.stdout
    assert "done: 01_mnist_resnet18" in shown.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((tmp_path / "smoke" / "runs").glob("mnist-full-*-seed0/result.json"))) == 1


def main_tag():
    from odnlib.recipes import resolve

    return resolve("mnist", **{name: int(value) for name, value in (s.split("=") for s in QUICK.split())}).tag


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "imagenet"], "row 'imagenet' does not exist: choose one of mnist"),
        (["--seeds", "0,0"], "seeds [0, 0] name one twice"),
        (["--seeds", "x"], "seed 'x' is not a whole number"),
        (["--rows", "mnist,mnist"], "rows ['mnist', 'mnist'] name one twice"),
        (["--device", "tpu"], "device 'tpu' is not here"),
        (
            ["--only", "08"],
            "only '08': no such notebook to train with these rows and this protocol (01 to 06, 09 to 13)",
        ),
        (["--rows", "mnist,svhn", "--only", "09"], "rows ['mnist', 'svhn'] are fewer than 3"),
        (["--rows", "mnist", "--only", "13"], "pairs [] name no two datasets"),
        (["--jobs", "0"], "jobs '0': cpu has room for 1 to "),
        (["--set", "with=3"], "there is no parameter 'with'"),
        (["--profile", "big"], "profile 'big' does not exist"),
    ],
)
def test_refused_before_any_notebook_starts(arguments, said, capsys, tmp_path):
    assert main(["notebooks", "--results-dir", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"odnlib: {said}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
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
    for row, name in plan.NOTEBOOKS.items():
        cells = [
            cell for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells if cell.cell_type == "code"
        ]
        assert cells[0].source.startswith(f'row = "{row}"')
        code[row] = [cells[0].source.replace(row, "ROW"), *(cell.source for cell in cells[1:])]
    assert all(cells == code["mnist"] for cells in code.values())


def test_runs_that_others_led_to_are_stale_with_their_notebook(tmp_path):
    """10 and 13 know some of their runs only once they have run; other code makes those stale too."""
    from odnlib.recipes import resolve

    runs = tmp_path / "smoke" / "runs"
    own = resolve("own_example_shapes_01234567", "odn", "smoke", "fast", target_pct=60.0, tolerance_pct=0.0)
    searched = resolve("mnist", "odn", "smoke", "fast")
    plain = resolve("mnist", "full", "smoke", "fast", last_depth=2)
    for recipe in (own, plain):
        (runs / recipe.name).mkdir(parents=True)
        results.write_json(runs / recipe.name / "recipe.json", dataclasses.asdict(recipe))
        results.write_json(runs / recipe.name / "provenance.json", {"code_hash": "of other code"})
    results.write_json(
        runs.with_name("reuse.json"),
        {"studies": [{"search": searched.name, "reused": plain.name, "plain": plain.name}]},
    )
    jobs = {job.source.stem[:2]: job for job in runner.plan(main_arguments("--results-dir", str(tmp_path)))}
    assert jobs["10"].runs() == {"stale"}
    assert jobs["13"].runs() == {"missing", "stale"}
    assert set(jobs["13"].known_later) == {runs / plain.name}


def test_the_whole_set_is_every_notebook_but_the_benchmark(tmp_path):
    jobs = runner.plan(main_arguments("--results-dir", str(tmp_path)))
    regenerating = {path.stem for path in NOTEBOOKS if path.stem != "08_benchmark"}  # wants an idle machine
    assert {job.source.stem for job in jobs} == regenerating
    assert [len(job.recipes) for job in jobs] == [2, 2, 2, 2, 2, 4, 5, 0, 8, 2, 2, 0]
    assert [job.reads_all for job in jobs] == [False] * 11 + [True]
    assert all(job.source.exists() for job in jobs)
    seeds = runner.plan(main_arguments("--results-dir", str(tmp_path), "--seeds", "0,1,2"))
    assert [len(job.recipes) for job in seeds] == [2] * 15 + [6, 15, 0, 24, 6, 6, 0]
    some = runner.plan(main_arguments("--results-dir", str(tmp_path), "--only", "03,09,13"))
    assert [job.source.stem[:2] for job in some] == ["03", "09", "13", "07"]


def test_quick_is_fast_and_fast_has_no_ablation(tmp_path):
    seen = []
    for arguments in (["--profile", "quick"], ["--profile", "quick", "--protocol", "released"]):
        runner_plan = runner.plan(main_arguments(*arguments, "--results-dir", str(tmp_path)))
        seen.append(({r.protocol for job in runner_plan for r in job.recipes}, len(runner_plan)))
    assert seen == [({"fast"}, 6), ({"released"}, 7)]


def lone_notebook(folder, source):
    """A job of one notebook with one cell."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "lone.ipynb")
    return runner.Job(folder / "lone.ipynb", folder / "out" / "lone.ipynb", {}, [], folder)


@pytest.mark.slow
def test_a_cell_that_raises_is_shown_with_its_traceback(tmp_path):
    job = lone_notebook(tmp_path, "def broken():\n    return 1 / 0\n\nbroken()")
    runner.run_side_by_side([job], [{}])
    assert (job.state, job.problem) == ("failed", "ZeroDivisionError: division by zero")
    assert "return 1 / 0" in job.traceback
    assert "\x1b" not in job.traceback
    assert "ZeroDivisionError" in job.executed.read_text()  # the executed notebook is kept


@pytest.mark.slow
def test_a_kernel_that_dies_is_named(tmp_path):
    job = lone_notebook(tmp_path, "import os\nos.kill(os.getpid(), 9)")
    runner.run_side_by_side([job], [{}])
    assert job.state == "failed"
    assert "DeadKernelError" in job.problem


@pytest.mark.slow
def test_a_stopped_notebook_is_waited_for(tmp_path):
    cell = "import time\ntry:\n    time.sleep(90)\nfinally:\n    time.sleep(1); open('kept', 'w').close()"
    job = lone_notebook(tmp_path, f"import os; os.chdir({str(tmp_path)!r})\n{cell}")
    with pytest.raises(TimeoutError, match="the time budget is used up"):
        runner.run_side_by_side([job], [{}], time.monotonic() + 20)
    assert job.state == "stopped"
    assert (tmp_path / "kept").exists()


@pytest.mark.slow
def test_papermill_refuses_a_misspelt_parameter(tmp_path):
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS[0]), str(tmp_path / "out.ipynb"), "-p", "sed", "1"]
    shown = subprocess.run([*command, "--no-progress-bar"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert shown.returncode != 0
    assert "there is no parameter 'sed': choose from row, profile, protocol, seed" in shown.stderr


LONGER = [*QUICK_ARGUMENTS, "--set", "full_epochs=40", "--set", "patience=99"]


@pytest.mark.slow
def test_everything_killed_in_mid_run_ends_in_the_same_files(tmp_path):
    """SIGKILL to run_all.sh, papermill and kernel at once; then to papermill alone, whose kernel lets go of the run."""
    main(["run", "--row", "mnist", "--results-dir", str(tmp_path / "whole"), *LONGER[2:]])
    arguments = [str(ROOT / "run_all.sh"), "--results-dir", str(tmp_path / "killed"), *LONGER]
    for victim in ("everything", "papermill"):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        wait_for(lambda victim=victim: epochs_of(tmp_path / "killed", "full") > (2 if victim == "everything" else 6))
        tree = psutil.Process(process.pid).children(recursive=True)
        papermill = [x for x in tree if "odnlib.notebooks.render" in x.cmdline()]
        for each in [process, *tree] if victim == "everything" else papermill:
            each.kill()
        shown, _ = process.communicate(timeout=60)
        psutil.wait_procs(tree, timeout=20)
        assert not any(each.is_running() for each in tree), victim
    assert "failed: 01_mnist_resnet18" in shown
    assert not list((tmp_path / "killed").glob("smoke/runs/mnist-full*/result.json"))
    assert run_all("--results-dir", str(tmp_path / "killed"), *LONGER).returncode == 0
    for folder in (tmp_path / "whole").glob("smoke/runs/mnist-*"):
        for name in ("recipe.json", "epochs.csv", "depths.csv", "result.json", "network.safetensors"):
            twin = tmp_path / "killed" / folder.relative_to(tmp_path / "whole") / name
            assert twin.read_bytes() == (folder / name).read_bytes(), twin


@pytest.mark.slow
def test_run_all_stops_when_asked(tmp_path):
    arguments = [str(ROOT / "run_all.sh"), "--results-dir", str(tmp_path), *LONGER, "--set", "full_epochs=4000"]
    process = subprocess.Popen([*arguments, "--set", "patience=4000"], stdout=subprocess.PIPE, text=True)
    wait_for(lambda: epochs_of(tmp_path, "full") > 2)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=90)
    assert process.returncode == 75
    assert "the same command goes on from there" in shown
    (folder,) = tmp_path.glob("smoke/runs/mnist-full-*")
    assert "stopped (SIGINT) and kept at full, epoch" in (folder / "log.txt").read_text()


def epochs_of(results_dir, variant):
    found = list(results_dir.glob(f"smoke/runs/mnist-{variant}-*/epochs.csv"))
    return len(found[0].read_text().splitlines()) - 1 if found else 0


def wait_for(look, seconds=90):
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_help_needs_no_environment(tmp_path):
    copy = tmp_path / "clone"
    shutil.copytree(ROOT / "odnlib", copy / "odnlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_all.sh", copy)
    shown = subprocess.run([str(copy / "run_all.sh"), "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    for option in ("--profile", "--rows", "--seeds", "--protocol", "--data-dir", "--device", "--jobs", "--help"):
        assert option in shown.stdout
    assert not (copy / ".venv").exists()


def set_up_with(folder, **commands):
    """run_all.sh --setup-only in a bare copy, where each of `commands` is a small script in place of the real one."""
    clone, bin_ = folder / "clone", folder / "bin"
    clone.mkdir()
    bin_.mkdir()
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    for name in ("bash", "dirname", "cmp", "df", "awk", "rm", "cp", "mv", "grep", "tail", "env"):
        (bin_ / name).symlink_to(shutil.which(name))
    for name, script in commands.items():
        (bin_ / name).unlink(missing_ok=True)
        (bin_ / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (bin_ / name).chmod(0o755)
    environment = {"PATH": str(bin_), "HOME": str(folder), "PIP_NO_INDEX": "1"}
    command = [str(clone / "run_all.sh"), "--setup-only"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


PYTHON = f'exec {sys.executable} "$@"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "said"),
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
def test_set_up_says_what_is_missing(commands, said, tmp_path):
    shown = set_up_with(tmp_path, **commands)
    assert shown.returncode == 1
    assert shown.stderr.startswith(f"run_all.sh: {said}"), shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_prose_renders_again_and_other_parameters_too(regenerated, tmp_path, monkeypatch):
    folder, _ = regenerated
    job, _ = runner.plan(main_arguments("--results-dir", str(folder), *QUICK_ARGUMENTS))
    assert job.done()
    edited = shutil.copy(job.source, tmp_path)
    with open(edited, "a") as file:
        file.write("\n")
    monkeypatch.setattr(job, "source", runner.Path(edited))
    assert not job.done()
    assert job.runs() == {"finished"}


def test_a_torn_notebook_is_rendered_again(regenerated, tmp_path):
    folder, _ = regenerated
    job, _ = runner.plan(main_arguments("--results-dir", str(folder), *QUICK_ARGUMENTS))
    torn = tmp_path / "torn.ipynb"
    torn.write_text(job.executed.read_text()[:1000])
    job.executed = torn
    assert not job.done()
    assert runner.error_in(torn) == ("", "")


def test_fresh_sets_every_run_aside_once(regenerated, monkeypatch, capsys):
    """Also one that two notebooks share; nothing is set aside while notebooks run."""
    folder, _ = regenerated
    aside = []
    monkeypatch.setattr(runner.results, "set_aside", aside.append)
    monkeypatch.setattr(runner, "run_side_by_side", lambda *_: None)
    arguments = ["notebooks", "--results-dir", str(folder), *QUICK_ARGUMENTS]
    assert main(arguments) == 0
    assert aside == []
    assert main([*arguments, "--fresh"]) == 0
    assert sorted(path.name.split("-")[1] for path in aside) == ["full", "odn"]


def test_whereabouts_come_from_the_run_folders(regenerated):
    folder, _ = regenerated
    arguments = main_arguments("--results-dir", str(folder), *QUICK_ARGUMENTS)
    job, _ = runner.plan(arguments)
    epochs = len(pd.read_csv(job.folders[1] / "epochs.csv"))
    assert job.whereabouts() == f"full, epoch {epochs} (full, depth 2)"
    assert json.loads((job.folders[0] / "result.json").read_text())["depth"] == 2


def main_arguments(*arguments):
    from odnlib.__main__ import parser

    return parser().parse_args(["notebooks", *arguments])


def test_slots_are_gpus_or_cores_and_no_two_share_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f,5")
    assert plan.slots("auto", "cuda", None) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("3", "GPU-7f", "5")]
    assert plan.slots("2", "cuda", 4) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "GPU-7f"}]
    monkeypatch.setattr(plan, "cores", lambda: 8)
    assert plan.slots("auto", "cpu", 1) == [{"OMP_NUM_THREADS": "1"}] * 8
    assert plan.slots("3", "cpu", None) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert plan.slots("auto", "cpu", None) == plan.slots("1", "cpu", None) == [{}]
    for jobs, device in (("4", "cuda"), ("9", "cpu"), ("2", "cuda:1"), ("-1", "cpu"), ("two", "cpu")):
        with pytest.raises(plan.RecipeError, match="has room for 1 to"):
            plan.slots(jobs, device, None)


@pytest.mark.slow
def test_a_failed_job_frees_its_slot_and_no_two_hold_one(tmp_path):
    """Four notebooks in two slots, the first fails: each names its slot and when it held it."""
    jobs = []
    for number in range(4):
        (tmp_path / f"{number}").mkdir()
        source = "1 / 0" if number == 0 else "import os, time\nstart = time.time(); time.sleep(1)"
        source += "\nprint(os.environ['SLOT'], start, time.time())"
        jobs.append(lone_notebook(tmp_path / f"{number}", source))
    runner.run_side_by_side(jobs, [{"SLOT": "a"}, {"SLOT": "b"}])
    assert [job.state for job in jobs] == ["failed", "done", "done", "done"]
    held = [nbformat.read(job.executed, 4).cells[-1].outputs[0].text.split() for job in jobs[1:]]
    assert {slot for slot, *_ in held} <= {"a", "b"}
    for slot in "ab":
        times = sorted((float(start), float(end)) for name, start, end in held if name == slot)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
