"""What all notebooks share: checked parameters, folders, tables, and how they are committed."""

import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

import run_all
from odnlib import experiment, recipes
from odnlib.files import ROOT
from odnlib.recipes import RecipeError
from studies import notebook, plots, rows
from studies.notebook import NotebookTrainer, check_parameters, read_assignments
from tests.conftest import tiny_recipe

KNOWN = 'row = "mnist"  # which\nseed = 0\nfresh = False\noverrides = {}'
NAMES = "row seed fresh overrides"


@pytest.mark.parametrize(
    ("cells", "messages"),
    [
        ([KNOWN], []),
        ([KNOWN, "# Parameters\nrow = 'svhn'\nseed = 1\noverrides = {'width': 8}"], []),
        ([KNOWN, "# Parameters\nsed = 5"], ["there is no parameter 'sed': did you mean 'seed'. choose from row, seed"]),
        ([KNOWN, "# Parameters\nseed = float('nan')"], ["seed .* is not a whole number"]),
        ([KNOWN, "# Parameters\nseed = '5'\nrow = None"], ["row None is not of type", "seed '5' is not a whole"]),
        # As a person edits the cell in a live kernel
        ([f"{KNOWN}\nsed = 3"], ["there is no parameter 'sed': did you mean 'seed'"]),
        ([KNOWN.replace("seed", "sed")], ["there is no parameter 'sed': did you mean 'seed'"]),
        ([f"%pwd\n{KNOWN}\ntarget_pcnt = 9\nSeed = 1"], ["'Seed': did you mean 'seed'", "'target_pcnt': choose"]),
        ([f"{KNOWN}\nfresh = 'no'"], ["fresh 'no' is not True or False"]),
        ([f"{KNOWN}\nseed = [0, 1]"], [r"seed \[0, 1\] is not a whole number"]),
        ([f"{KNOWN}\nrow = str(len('abc'))"], []),  # computed
        ([f"{KNOWN}\nsed = 3", KNOWN], []),  # mended
        ([KNOWN, "odn = 1\nseed + 1", f"{KNOWN}\nsed = 3", "seed = 5", "1 +"], ["there is no parameter 'sed'"]),
    ],
)  # fmt: skip
def test_parameters_are_checked_as_a_whole(cells, messages):
    told = []
    try:
        check_parameters(["", *cells, "notebook.check(In)"], NAMES)
    except RecipeError as error:
        told = str(error).splitlines()
    assert len(told) == len(messages), told
    assert all(map(re.search, messages, told)), told


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_each_notebook_names_all_its_parameters(path):
    parameters, code, *_ = [x.source for x in nbformat.read(path, 4).cells if x.cell_type == "code"]
    names, of_its_own = re.search(r'notebook.check_parameters\(\s*In,\s+"([^"]+)"(?:,\s+(\w+)=int)?', code).groups()
    assert read_assignments(parameters).keys() == {*names.split(), *filter(None, [of_its_own])}
    check_parameters(["", parameters], names, **({of_its_own: int} if of_its_own else {}))


def test_a_notebook_with_another_odnlib_is_refused(tmp_path, monkeypatch):
    """As in a checkout that was copied with its .venv, or beside an odnlib that pip has copied away."""
    (tmp_path / "studies").mkdir()
    monkeypatch.chdir(tmp_path)
    for root in (ROOT, tmp_path / "site-packages"):
        monkeypatch.setattr(notebook, "ROOT", root)
        with pytest.raises(
            RecipeError, match=f"lies in {tmp_path}, and odnlib in {root}: start it with the .venv beside"
        ):
            check_parameters(["", KNOWN], NAMES)


def test_runs_begun_before_a_time_start_over_once(tmp_path, monkeypatch, tiny_data):
    """As run_all.sh --fresh wants it: of notebooks that share a run the first one starts it over."""
    monkeypatch.setattr(NotebookTrainer, "image_loader", lambda *_: lambda: tiny_data)
    recipe, begun = tiny_recipe("full", last_depth=1, full_epochs=1), []
    for since in ("", "2020-01-01", "2999-01-01"):
        folder = NotebookTrainer(str(tmp_path), "", "cpu", since).train(recipe)
        begun.append((folder / "result.json").stat().st_mtime_ns)
    assert begun[0] == begun[1] < begun[2]
    assert len(list(folder.parent.glob(f"{folder.name}.replaced*"))) == 1


def test_images_are_loaded_only_where_something_is_left_to_train(tmp_path, capsys, tiny_data, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "draw_samples", drawn.append)
    planned = [tiny_recipe(variant, last_depth=1) for variant in recipes.VARIANTS]
    monkeypatch.setattr(NotebookTrainer, "image_loader", lambda *_: lambda: tiny_data)
    place = NotebookTrainer(str(tmp_path), "", "cpu", False)
    rows.draw_samples(place, *planned)
    for recipe in planned:
        experiment.run(recipe, lambda: tiny_data, tmp_path)
    monkeypatch.setattr(NotebookTrainer, "image_loader", lambda *_: lambda: 1 / 0)
    rows.draw_samples(place, *planned)
    assert "no images are loaded" in capsys.readouterr().out
    monkeypatch.setattr(NotebookTrainer, "image_loader", lambda *_: lambda: tiny_data)
    rows.draw_samples(NotebookTrainer(str(tmp_path), "", "cpu", True), *planned)
    assert drawn == [tiny_data.train] * 2


def test_folders_begin_at_the_repository_wherever_the_kernel_does(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    place = NotebookTrainer("results/of-a-test", "", "cpu", "")
    assert (place.results_dir, place.data_dir) == (ROOT / "results" / "of-a-test", ROOT / "data")
    assert notebook.resolve_folder(str(tmp_path), "data") == tmp_path


def test_tables_have_words_and_nothing_empty():
    lines = pd.DataFrame(
        {"row": ["mnist"] * 2, "params": [1, 2], "val_acc_pct": [99.1, None], "test_acc_pct": [None] * 2}
    )
    page = notebook.style_table(lines).to_html()
    assert "row mnist</caption>" in page
    assert re.findall(">([^<]+)</th>", page) == ["parameters", "validation (%)"]
    assert "nan" not in page


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


@pytest.mark.slow
def test_papermill_refuses_a_misspelt_parameter(tmp_path):
    command = [sys.executable, "-m", "papermill", run_all.NOTEBOOKS["01"], tmp_path / "out.ipynb", "-p", "sed", "1"]
    shown = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True, timeout=300)
    assert shown.returncode != 0
    assert "there is no parameter 'sed': did you mean 'seed'?" in shown.stderr
