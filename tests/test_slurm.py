"""Runs as an array on a real Slurm, set up here by tests/slurm.sh: preempted, queued again, made to fail."""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from odnlib import ROOT
from odnlib.__main__ import main
from odnlib.notebooks import cluster
from odnlib.recipes import RecipeError
from tests.test_runner import wait_for

SETTINGS = ["width=8", "train_images=64", "last_depth=2", "warmup_epochs=1", "depth_epochs=1", "finetune_epochs=1"]
SETTINGS = [x for setting in [*SETTINGS, "full_epochs=300", "patience=999"] for x in ("--set", setting)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("4:00:00", 240), ("2-12:00:00", 3600), ("1-0", 1440), ("10:30", 11), ("0:20", 1)],
)
def test_times_as_slurm_writes_them(text, expected):
    assert cluster.minutes(text) == expected


@pytest.mark.parametrize("text", ["", "4h", "1:2:3", "-5"])
def test_other_times_are_refused(text):
    with pytest.raises(RecipeError, match="is not a time such as"):
        cluster.minutes(text)


def test_a_cluster_that_is_not_there_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["notebooks", "--rows", "mnist", "--slurm", "partition=gpu", "--results-dir", str(tmp_path)]) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert main(["notebooks", "--rows", "mnist", "--slurm", "time=10", "--results-dir", str(tmp_path)]) == 2
    assert "name a partition, e.g." in capsys.readouterr().err


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm of two GPUs, which commands find through SLURM_CONF."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        pytest.skip("needs root, and Debian's packages slurmctld, slurmd, slurm-client and munge")
    folder = tempfile.mkdtemp(prefix="slurm-")  # a socket's name is short
    script = [str(ROOT / "tests" / "slurm.sh")]
    started = subprocess.run([*script, "start", folder], capture_output=True, text=True, timeout=120)
    try:
        assert started.returncode == 0, started.stderr
        monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        yield
    finally:
        subprocess.run([*script, "stop", folder], check=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def epochs_of(run: Path) -> int:
    return len((run / "epochs.csv").read_text().splitlines()) - 1 if (run / "epochs.csv").exists() else 0


@pytest.mark.slow
def test_an_array_survives_preemption_and_names_what_failed(slurm, tmp_path):
    """Two rows, three seeds, searches and whole networks: twelve tasks. One is warned by Slurm (SIGUSR2), one is put
    back into the queue, and one cannot make its folder.
    """
    main(["run", "--row", "mnist", "--variants", "full", "--results-dir", str(tmp_path / "undisturbed"), *SETTINGS])
    (undisturbed,) = (tmp_path / "undisturbed" / "smoke" / "runs").glob("mnist-full-*-seed0")
    results_dir = tmp_path / "results"
    runs, logs = results_dir / "smoke" / "runs", results_dir / "smoke" / "slurm"
    runs.mkdir(parents=True)
    in_the_way = runs / undisturbed.name.replace("mnist-full", "mnist-odn").replace("seed0", "seed1")
    in_the_way.write_text("")
    command = [sys.executable, "-m", "odnlib", "notebooks", "--rows", "mnist,svhn", "--seeds", "0,1,2", *SETTINGS]
    command += ["--results-dir", str(results_dir)]
    array = [*command, "--slurm", "partition=gpu,time=30", "--array-parallelism", "2"]
    process = subprocess.Popen(array, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    disturb = {"seed0": ["scancel", "--signal=USR2"], "seed2": ["scontrol", "requeue"]}
    for seed, how in disturb.items():
        run = runs / undisturbed.name.replace("seed0", seed)
        wait_for(lambda run=run: epochs_of(run) > 3 and (run / "checkpoint.pt").exists(), seconds=240)
        # Slurm 22.05 signals at once, answers "try again later" all the same, and scancel would repeat it for minutes.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*how, cluster.submitted(logs)[run.name]], timeout=3)
    shown, _ = process.communicate(timeout=600)

    assert process.returncode == 1
    states = re.findall(r"^  (\w+) +.*/notebooks/(\d\d).*?(?:-(seed\d))?\.ipynb$", shown, re.MULTILINE)
    expected = [
        ("failed" if (row, seed) == ("01", "seed1") else "done", row, seed)
        for row in ("01", "04")
        for seed in ("seed0", "seed1", "seed2")
    ]
    assert states == [*expected, ("done", "07", "")]
    assert "FileExistsError" in shown
    for seed in disturb:
        run = runs / undisturbed.name.replace("seed0", seed)
        assert "goes on" in (run / "log.txt").read_text()
    assert "stopped (SIGUSR2)" in (runs / undisturbed.name / "log.txt").read_text()
    for name in ("recipe.json", "epochs.csv", "depths.csv", "result.json"):
        assert (runs / undisturbed.name / name).read_bytes() == (undisturbed / name).read_bytes()

    said = "\n".join(file.read_text() for file in logs.glob("*_log.out"))
    held = re.findall(r"^(\S+) held GPU (\d) from ([\d.]+) to ([\d.]+)$", said, re.MULTILINE)
    assert {gpu for _, gpu, *_ in held} == {"0", "1"}
    times = {gpu: sorted((float(a), float(b)) for _, g, a, b in held if g == gpu) for gpu in "01"}
    assert all(before[1] <= after[0] for at in times.values() for before, after in itertools.pairwise(at))

    in_the_way.unlink()
    collected = subprocess.run([*command, "--collect"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert collected.returncode == 1, "the run that failed is still missing, and --collect trains nothing"
    assert "FileExistsError" in collected.stdout
    assert not in_the_way.exists()
