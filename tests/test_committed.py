"""What is committed in results/ is what the committed run folders give, and README tells the same."""

import re
import shutil
import subprocess

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from odnlib.files import ROOT
from studies import report
from tests.conftest import missing

PROFILES = sorted(folder.parent.name for folder in (ROOT / "results").glob("*/runs") if folder.parent.name != "smoke")
MEASURED = ("benchmark.csv", "latency.csv", "memory.csv", "reuse.json")  # by 08; which runs are 13's


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """Every profile written again from copies of the run folders and of what was measured apart from them."""
    folder = tmp_path_factory.mktemp("rebuilt")
    shutil.copy(ROOT / "results" / report.REMARKS_FILE, folder)
    for profile in PROFILES:
        ignore = shutil.ignore_patterns("*.pt", "*.safetensors", "*.replaced*", ".*")
        for kind in ("runs", "cut_short", "networks"):
            if (ROOT / "results" / profile / kind).exists():
                shutil.copytree(ROOT / "results" / profile / kind, folder / profile / kind, ignore=ignore)
        for name in MEASURED:
            if (ROOT / "results" / profile / name).exists():
                shutil.copy(ROOT / "results" / profile / name, folder / profile)
    return folder, {profile: report.write_report(folder, profile) for profile in PROFILES}


def written(folder):
    """Tables, pages and figures of one profile, by their place in it; the page is made of the same tables."""
    files = [*folder.glob("*.*"), *folder.glob("figures/*")]
    return {str(path.relative_to(folder)): path for path in files if path.name[0] != "." and path.name != "report.html"}


def same_table(one, other):
    """Text is the same, and numbers to one unit of the last of six digits: processors differ beyond."""
    tables = [pd.read_csv(path) for path in (one, other)]
    assert list(tables[0]) == list(tables[1])
    for name in tables[0]:
        columns = [table[name] for table in tables]
        if pd.api.types.is_float_dtype(columns[0]):
            np.testing.assert_allclose(*columns, rtol=1e-5, atol=1e-9, err_msg=f"{one.name}: {name}")
        else:
            assert columns[0].equals(columns[1]), f"{one.name}: {name}"


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
        elif path.suffix == ".csv":
            same_table(path, made[name])
        else:
            assert path.read_text() == made[name].read_text(), name


@pytest.mark.slow
def test_readme_has_the_headline_of_full_width(rebuilt):
    _, reports = rebuilt
    assert report.format_markdown_table(reports["quick"].headline) in (ROOT / "README.md").read_text()


def test_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1500
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert notebooks <= set(list_links(text))
    assert not [link for link in list_links(text) if not (ROOT / link).exists()]


def list_links(text: str) -> list[str]:
    return re.findall(r"\]\((?!http|#)([^)]+)\)", text)


def test_results_stay_small_and_hold_no_weights():
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        missing("the history of git")
    committed = [ROOT / name for name in listed.stdout.splitlines()]
    kinds = {".csv", ".json", ".md", ".png", ".html", ".py", ".onnx", ".ipynb"}
    assert {path.suffix for path in committed} <= kinds
    assert {path.parent.name for path in committed if path.suffix == ".ipynb"} <= {"web"}  # not the launcher's own
    networks = [path.stat().st_size for path in committed if path.suffix == ".onnx"]
    assert {path.parents[1].name for path in committed if path.suffix == ".onnx"} == {"networks"}
    assert max(networks) < 6e6
    assert sum(networks) < 15e6
    assert sum(path.stat().st_size for path in committed) < 40e6


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/web/*.ipynb")), ids=lambda path: path.stem)
def test_executed_copies_are_whole_small_and_of_no_machine(path):
    text, source = path.read_text(), nbformat.read(ROOT / "notebooks" / path.name, 4)
    executed = [cell for cell in nbformat.reads(text, 4).cells if cell.cell_type == "code"]
    assert path.stat().st_size < 600e3
    assert not re.search(r"/(home|root|work|Users|tmp|mnt)/", text)
    assert all(cell.execution_count for cell in executed)
    assert not any(output.output_type == "error" for cell in executed for output in cell.outputs)
    prose = "\n".join(cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")
    assert not [link for link in list_links(prose) if not (path.parent / link).exists()]
    ours = [cell.source for cell in executed if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert ours == [cell.source for cell in source.cells if cell.cell_type == "code"]
