"""Publish the network that a row's search chose and the one a depth below: results/<profile>/networks/<row>/.

    python results/publish.py DATA_DIR RUN_FOLDER [RUN_FOLDER OF THE DEPTH BELOW]

Writes depthNN.onnx, model.json and a model card, README.md. The chosen network is checked on all test images: as many
hits as the run had. The one below never meets them; it is checked on the validation images. Weights are not committed,
so this needs the folder in which the run was trained.
"""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
from odnlib import data, experiment, recipes  # noqa: E402
from odnlib.files import replace, write_json  # noqa: E402
from studies import export  # noqa: E402

CARD = """
## All depths that were tried

| depth | parameters | MB | MACs (millions) | validation accuracy, % | file |
|---|---|---|---|---|---|
{depths}

Only depth {depth} has met the test images: {test:.2f} % of {images:,}, 95 % interval {low:.2f} to {high:.2f}
(binomial; other seeds differ, see `results/{profile}/comparison.md`). Meant for comparing with the paper's networks and
for building on them.
Licence: that of this repository (`LICENSE`) for the weights; the images' own terms are their source's.
"""


def main(data_dir: Path, folder: Path, *others: Path) -> None:
    """See above."""
    experiment.keep_freed_memory()
    run, to = recipes.read(folder), folder.parents[1] / "networks" / recipes.read(folder).row
    images = data.load(recipes.read(folder), data_dir, "cpu")
    tried = pd.concat([pd.read_csv(x / "depths.csv").dropna(subset="val_acc_pct") for x in (folder, *others)])
    tried = tried.sort_values("depth").set_index("depth").drop(columns=["warmup_val_acc_pct", "chosen"])
    to.mkdir(parents=True, exist_ok=True)
    for depth in [x for x in (run.depth - 1, run.depth) if x in tried.index]:
        source = folder if depth == run.depth or not others else others[0]
        network, file = export.network_of(source, images.test.dataset, depth), to / f"depth{depth:02d}.onnx"
        export.to_onnx(network, images.test.dataset, file)
        split, recorded = (images.test, run.test_acc_pct) if depth == run.depth else (images.validation, None)
        recorded = tried.loc[depth, "val_acc_pct"] if recorded is None else recorded
        if (hits := round(export.accuracy_pct(file, split) * len(split) / 100)) != round(recorded * len(split) / 100):
            raise export.ExportError(f"{file}: {hits} hits of {len(split)}, recorded {recorded} %")
        tried.loc[depth, "file"] = file.name
    dataset, test = images.test.dataset, run.test_acc_pct
    half = 196 * (test / 100 * (1 - test / 100) / len(images.test)) ** 0.5
    about = {"run": f"{run.profile}/runs/{folder.name}", "row": run.row, "architecture": run.architecture}
    about |= {"width": run.width, "depth": run.depth, "image_shape": list(dataset.image_shape)}
    about |= {"classes": list(dataset.class_names) or [str(i) for i in range(dataset.classes)]}
    about |= {"mean": dataset.mean, "std": dataset.std, "goal_pct": run.goal_pct, "test_images": len(images.test)}
    about |= {"test_acc_pct": test, "val_acc_pct": run.val_acc_pct, "params": run.params, "size_mb": run.size_mb}
    about |= {"macs_m": run.macs_m, "tried": tried.fillna({"file": ""}).reset_index().to_dict("records")}
    write_json(to / "model.json", about)
    lines = [f"| {x.Index} | {x.params:,} | {x.size_mb:.2f} | {x.macs_m:.1f} | {x.val_acc_pct:.2f} | {x.file} |"
             for x in tried.fillna({"file": ""}).itertuples()]  # fmt: skip
    card = export.card(run, about, dataset).replace("model.onnx", f"depth{run.depth:02d}.onnx")
    card += CARD.format(depths="\n".join(lines), depth=run.depth, test=test, images=len(images.test),
                        low=test - half, high=test + half, profile=run.profile)  # fmt: skip
    replace(to / "README.md", lambda path: path.write_text(card))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
