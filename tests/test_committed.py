"""What is committed in results/ is what the committed run folders give, and README tells the same."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from odnlib import ROOT
from odnlib.verdict import report

PROFILES = sorted(folder.parent.name for folder in (ROOT / "results").glob("*/runs") if folder.parent.name != "smoke")
MEASURED = ("benchmark.csv", "benchmark_scaling.csv", "reuse.json")  # times that 08 took; which runs are 13's
PICTURE = re.compile(r'src="data:[^"]*"')


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """Every profile written again from copies of the run folders and of what was measured apart from them."""
    folder = tmp_path_factory.mktemp("rebuilt")
    for profile in PROFILES:
        runs = folder / profile / "runs"
        ignore = shutil.ignore_patterns("*.pt", "*.safetensors", "*.replaced*", ".*")
        shutil.copytree(ROOT / "results" / profile / "runs", runs, ignore=ignore)
        for name in MEASURED:
            if (ROOT / "results" / profile / name).exists():
                shutil.copy(ROOT / "results" / profile / name, folder / profile)
    return folder, {profile: report.write(folder, profile) for profile in PROFILES}


def written(folder):
    """Tables, pages and figures of one profile, by their place in it."""
    files = [*folder.glob("*.*"), *folder.glob("figures/*")]
    return {str(path.relative_to(folder)): path for path in files if path.name[0] != "."}


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_committed_tables_and_figures_are_rebuilt(rebuilt, profile):
    folder, _ = rebuilt
    committed, made = written(ROOT / "results" / profile), written(folder / profile)
    assert set(committed) == set(made)
    for name, path in committed.items():
        if path.suffix == ".png":
            pictures = [np.asarray(Image.open(x).convert("RGB"), dtype=float) for x in (path, made[name])]
            assert pictures[0].shape == pictures[1].shape, name
            assert np.abs(pictures[0] - pictures[1]).mean() < 1, name  # of 255: fonts are hinted alike, not quite
        else:
            assert PICTURE.sub("", path.read_text()) == PICTURE.sub("", made[name].read_text()), name


@pytest.mark.slow
def test_readme_has_the_reports_headline(rebuilt):
    _, reports = rebuilt
    readme = (ROOT / "README.md").read_text()
    assert report.markdown_table(reports["reduced"].headline()) in readme


def test_results_stay_small_and_hold_no_weights():
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git clone: nothing is committed here")
    committed = [ROOT / name for name in listed.stdout.splitlines()]
    assert {path.suffix for path in committed} <= {".csv", ".json", ".md", ".png", ".html"}
    assert sum(path.stat().st_size for path in committed) < 10e6
