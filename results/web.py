"""Execute notebooks to be read on the web, results/quick/web/<notebook>.ipynb: with outputs, without machines' paths.

    python results/web.py DATA_DIR [NUMBER ...]

Finished runs are taken from results/<profile>/runs and nothing is trained; in profile smoke, where there are none, the
runs are trained while the notebook is executed. The real images in DATA_DIR are only looked at.
"""

import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
import run_all  # noqa: E402
import run_one  # noqa: E402
from odnlib import experiment, recipes  # noqa: E402

WEB, SCRATCH = ROOT / "results" / "quick" / "web", "results/mine/web"
COPIES = {  # number of a notebook -> its parameters; profile and overrides are those of committed runs
    "01": {"profile": "reduced", "rule": "released", "overrides": {
        "warmup_epochs": 2, "target_pct": 97.5, "depth_epochs": 4, "finetune_epochs": 2, "full_epochs": 3}},
    "02": {"profile": "reduced", "rule": "released", "overrides": {
        "train_images": 1500, "validation_images": 1000, "target_pct": 50.5, "threads": 1}},
    "04": {"profile": "smoke"},
}  # fmt: skip


def write(number: str, parameters: dict, data_dir: str) -> None:
    """Execute one notebook and write its copy; refuse to train at length what should have been there."""
    row, source, scratch = run_all.ROW_OF_NOTEBOOK[number], run_all.NOTEBOOKS[number], ROOT / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    arguments = {"rule": parameters.get("rule", ""), **parameters.get("overrides", {})}
    for variant in recipes.VARIANTS if parameters["profile"] != "smoke" else ():
        folder = experiment.run_folder(recipes.resolve(row, variant, parameters["profile"], **arguments), "")
        shutil.copytree(ROOT / "results" / folder, scratch / folder)
    executed, given = scratch / source.name, {"data_dir": data_dir, "results_dir": SCRATCH}
    scratch.mkdir(parents=True, exist_ok=True)
    run_one.execute(str(source), str(executed), parameters | given)
    text = executed.read_text().replace(data_dir, "data").replace(f"{ROOT}/", "")
    notebook = nbformat.reads(text, 4)
    for part in (notebook, *notebook.cells):
        for kept in ("papermill", "execution", "widgets"):  # when and where it was executed
            part.metadata.pop(kept, None)
    WEB.mkdir(exist_ok=True)
    nbformat.write(notebook, WEB / source.name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for number in sys.argv[2:] or COPIES:
        write(number, COPIES[number], str(Path(sys.argv[1]).absolute()))
