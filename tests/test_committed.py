"""What is committed in results/ is what the committed run folders give, and README tells the same."""

import csv
import re
import shutil
import subprocess
from decimal import Decimal
from itertools import zip_longest

import numpy as np
import pytest
from PIL import Image

from odnlib import ROOT
from odnlib.verdict import report

PROFILES = sorted(folder.parent.name for folder in (ROOT / "results").glob("*/runs") if folder.parent.name != "smoke")
MEASURED = ("benchmark.csv", "benchmark_scaling.csv", "reuse.json")  # times that 08 took; which runs are 13's
PICTURE = re.compile(r'src="data:[^"]*"')
DECIMAL = re.compile(r"(?<![\w.])(-?\d+\.\d+)(?![\w.])")  # as rounded for a reader; not those in a run's name
FRACTION = re.compile(r"-?\d+(\.\d+(e-?\d+)?|e-?\d+)")  # as a table has it; whole numbers are not rounded


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


def same_text(one, other):
    """Alike but for one unit in the last place of numbers with decimals: processors round differently."""
    pairs = list(zip_longest(DECIMAL.split(one), DECIMAL.split(other)))  # text, number, text, ...
    if any(a != b for a, b in pairs[::2]):
        return False
    numbers = [(Decimal(a), Decimal(b)) for a, b in pairs[1::2]]
    return all(a.same_quantum(b) and abs(a - b) <= Decimal(1).scaleb(a.as_tuple().exponent) for a, b in numbers)


def same_cell(one, other):
    """Fractions alike to one unit of the sixth digit, which is the last that a table has; all else as text."""
    if not (FRACTION.fullmatch(one) and FRACTION.fullmatch(other)):
        return same_text(one, other)
    a, b = Decimal(one), Decimal(other)
    return abs(a - b) <= Decimal(1).scaleb(max(abs(a), abs(b)).adjusted() - 5)


def same_table(one, other):
    tables = [list(csv.reader(text.splitlines())) for text in (one, other)]
    cells = [[cell for line in table for cell in line] for table in tables]
    shapes = [[len(line) for line in table] for table in tables]
    return shapes[0] == shapes[1] and all(map(same_cell, *cells))


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
            continue
        texts = [PICTURE.sub("", x.read_text()) for x in (path, made[name])]
        same = same_table if path.suffix == ".csv" else same_text
        assert same(*texts) or texts[0] == texts[1], name  # == for pytest to show what differs


@pytest.mark.slow
def test_readme_has_the_reports_headline(rebuilt):
    _, reports = rebuilt
    readme = (ROOT / "README.md").read_text()
    table = report.markdown_table(reports["reduced"].headline()).splitlines()
    assert table[0] in readme
    assert same_text("\n".join(readme.split(table[0])[1].splitlines()[1 : len(table)]), "\n".join(table[1:]))


def test_only_the_last_place_of_a_number_may_differ():
    assert same_table("a,0.603712,12,0.0\n", "a,0.603713,12,0.0\n")
    assert same_table("0.12345,,1.0,1e-05\n", "0.123451,,0.999999,1.00001e-05\n")
    assert same_text("99.30 (99.31), n = 3", "99.31 (99.31), n = 3")
    for one, other in [("0.603712", "0.603714"), ("1234567", "1234568"), ("a", "b"), ("0.1", ""), ("1", "1,2")]:
        assert not same_table(one, other), (one, other)
    for one, other in [("n = 3", "n = 4"), ("99.30", "99.32"), ("99.30", "99.3"), ("fast-tol0.1", "fast-tol0.2")]:
        assert not same_text(one, other), (one, other)


def test_results_stay_small_and_hold_no_weights():
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git clone: nothing is committed here")
    committed = [ROOT / name for name in listed.stdout.splitlines()]
    assert {path.suffix for path in committed} <= {".csv", ".json", ".md", ".png", ".html"}
    assert sum(path.stat().st_size for path in committed) < 10e6
