"""Publish the network that a row's search chose and the one a depth below, as results/<profile>/networks/<row>/.

    python results/publish.py DATA_DIR RUN_FOLDER [RUN_FOLDER OF THE DEPTH BELOW]
    python results/publish.py DATA_DIR results/quick/networks/mnist  # its 8-bit file alone, anew

Writes depthNN.onnx, the chosen one in 8 bits, model.json and a model card, README.md. The chosen network is checked on
all test images: as many hits as the run had; the one below is checked on the validation images. Weights are not
committed, so the first line needs the folders in which the runs were trained.
"""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
from odnlib import data, experiment, recipes  # noqa: E402
from odnlib.files import read_json, write_atomically, write_json  # noqa: E402
from studies import compression, export, report  # noqa: E402

MODEL_CARD_ENDING = """
## All depths that were tried

{tried}

Depth {depth} has {accuracy:.2f} % of {images:,} test images right, 95 % interval {low:.2f} to {high:.2f}
(binomial; nothing was chosen by them; for other seeds see `results/{profile}/comparison.md`). Meant for comparing with
the paper's networks and for building on them. Licence: this repository's for the weights; the images' own terms are
their source's.
"""
INT8_ENDING = """
## In 8 bits

`{file}`, by onnxruntime's static quantiser, its ranges from {calibrated} training images: {size_mb:.2f} MB where
`{plain}` has {plain_mb:.2f}, {val_acc_pct:.2f} % on validation, {test_acc_pct:.2f} % on the test images.
"""


def publish_networks(data_dir: Path, *folders: Path) -> None:
    """Write the ONNX files, model.json and model card of run folders, the search's first; or ExportError."""
    run, dataset = recipes.read_run(folders[0]), data.DATASETS[recipes.read_run(folders[0]).row]
    images, to = data.load_splits(run, data_dir, "cpu"), folders[0].parents[1] / "networks" / run.row
    tables = [pd.read_csv(x / "depths.csv").dropna(subset="val_acc_pct").assign(folder=x) for x in folders]
    tried = pd.concat(tables).sort_values("depth").drop(columns=["warmup_val_acc_pct", "chosen"]).assign(file="")
    to.mkdir(parents=True, exist_ok=True)
    experiment.keep_freed_memory()
    for line in tried[tried["depth"].isin([run.depth - 1, run.depth])].itertuples():
        file, chosen = to / f"depth{line.depth:02d}.onnx", line.depth == run.depth
        split, recorded = (images.test, run.test_acc_pct) if chosen else (images.validation, line.val_acc_pct)
        network = export.load_network(line.folder, dataset, line.depth)
        temperature = export.fit_temperature(network, images.validation)
        export.write_onnx(network, dataset, file, temperature)
        if abs(export.onnx_accuracy_pct(file, split) - recorded) * len(split) > 50:  # half an image
            raise export.ExportError(f"{file}: not the {recorded} % that {line.folder.name} has recorded")
        tried.loc[tried["depth"] == line.depth, "file"] = file.name
    tried = tried.drop(columns="folder")
    names = ["row", "architecture", "width", "depth", "goal_pct", "params", "size_mb", "macs_m", "val_acc_pct"]
    about = {"run": folders[0].name} | {name: getattr(run, name) for name in [*names, "test_acc_pct", "test_images"]}
    about |= {"image_shape": list(dataset.image_shape), "mean": dataset.mean, "std": dataset.std}
    about["temperature"] = temperature  # of the last line: the chosen network
    about["classes"] = list(dataset.class_names) or [str(i) for i in range(dataset.classes)]
    write_json(to / "model.json", about | {"tried": tried.to_dict("records")})
    tested, share = {"images": len(images.test), "accuracy": run.test_acc_pct}, run.test_acc_pct / 100
    half = 196 * (share * (1 - share) / len(images.test)) ** 0.5
    tested |= {"low": run.test_acc_pct - half, "high": run.test_acc_pct + half}
    card = export.make_model_card(run, about, dataset).replace("model.onnx", f"depth{run.depth:02d}.onnx")
    table = report.format_markdown_table(tried)
    card += MODEL_CARD_ENDING.format(tried=table, depth=run.depth, profile=run.profile, **tested)
    write_atomically(to / "README.md", lambda path: path.write_text(card))
    add_8_bits(data_dir, to)


def add_8_bits(data_dir: Path, folder: Path) -> None:
    """Write depthNN-int8.onnx of a published folder's chosen network, and its accuracies into model.json and card."""
    about = read_json(folder / "model.json")
    run = recipes.read_run(folder.parents[1] / "runs" / about["run"])
    images, plain = data.load_splits(run, data_dir, "cpu"), folder / f"depth{about['depth']:02d}.onnx"
    file = plain.with_name(f"{plain.stem}-int8.onnx")
    compression.quantise_to_8_bits(plain, images.train, file)
    sizes = {"size_mb": file.stat().st_size / 1e6, "plain_mb": plain.stat().st_size / 1e6}
    for name, split in (("val_acc_pct", images.validation), ("test_acc_pct", images.test)):
        sizes[name] = round(export.onnx_accuracy_pct(file, split), 4)
    write_json(folder / "model.json", about | {"int8": {"file": file.name} | sizes})
    files = {"file": file.name, "plain": plain.name, "calibrated": compression.CALIBRATION_IMAGES}
    card = (folder / "README.md").read_text().partition("\n## In 8 bits")[0] + INT8_ENDING.format(**files, **sizes)
    write_atomically(folder / "README.md", lambda path: path.write_text(card))


if __name__ == "__main__":
    arguments = [Path(x) for x in sys.argv[1:]]
    if len(arguments) < 2:
        sys.exit(__doc__)
    (add_8_bits if (arguments[1] / "model.json").exists() else publish_networks)(*arguments)
