"""notebooks/array.sbatch on a real Slurm (tests/slurm.sh): tasks that are queued again in mid-run go on."""

import contextlib
import os
import shutil
import subprocess
import tempfile

import pytest

from odnlib.__main__ import main
from odnlib.files import ROOT
from tests.conftest import missing, wait_for
from tests.test_run_all import LONGER, assert_same_runs, epochs_kept

SETTINGS = [*LONGER, "--set=first_depth=1"]  # EMNIST's stand-in search begins later


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm on this machine, which commands find through SLURM_CONF."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        missing("root with a Slurm (of Debian the packages slurmctld, slurmd, slurm-client and munge)")
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


def queue(job: str) -> str:
    """What Slurm still has of a job; a busy controller may leave a question unanswered."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--job={job}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slow
def test_an_array_of_notebooks_goes_on_after_being_queued_again(slurm, tmp_path):
    """Two rows, each disturbed in its whole network: one as if preempted, one as a minute before its time is up."""
    rows, whole, results = ("mnist", "emnist"), tmp_path / "whole", tmp_path / "results"
    for row in rows:
        assert main(["run", "--row", row, "--results-dir", str(whole), *SETTINGS]) == 0
    options = ["--parsable", "--array=1-2", f"--output={tmp_path}/%a.log"]
    command = ["sbatch", *options, "notebooks/array.sbatch", "--results-dir", str(results), *SETTINGS]
    job = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    disturb = [["scontrol", "requeue", f"{job}_1"], ["scancel", "--signal=USR1", "--batch", f"{job}_2"]]
    for row, how in zip(rows, disturb, strict=True):
        wait_for(lambda row=row: epochs_kept(results, row) > 3, seconds=240)
        # Slurm 22.05 signals at once, answers "try again later" all the same, and scancel would repeat it for minutes.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(how, timeout=3)
    wait_for(lambda: set(queue(job).split()) == {"COMPLETED"}, seconds=600)
    logs = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert logs.count("DUE TO JOB REQUEUE") == logs.count(": done (") == 2, logs
    assert_same_runs(whole, results)
    for log in results.glob("smoke/runs/*-full-*/log.txt"):
        assert "goes on after" in log.read_text()
