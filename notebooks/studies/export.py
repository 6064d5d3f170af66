"""Export a trained network: model.onnx for any runtime, predict.py, which classifies photographs with it,
model.safetensors and model.json for PyTorch, and a model card.

model.onnx takes images as files store them - uint8 (N, height, width, channels) - and returns calibrated probabilities
(N, classes): softmax(logits / temperature), the temperature fitted on validation images (Guo et al., 2017). The weights
fit `models.build`, truncated at the depth in model.json.
"""

import json
import math
import re
import shutil
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from safetensors.torch import load_file, save
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional

from odnlib import metrics, models, recipes
from odnlib.data import Data, Dataset, Split
from odnlib.files import RunConflict, read_json, write_atomically, write_json
from odnlib.paper import TABLE_1
from studies import latency, predict

LARGEST_DIFFERENCE = 1e-4  # between log-probabilities of model.onnx and of the network
USAGE_SECTION = """
`python predict.py PHOTO_OR_FOLDER --out answers.csv` prepares photographs as the training images were prepared, and
classifies them: see `--help`. It needs onnxruntime, numpy and Pillow only, and tells how many photographs in folders
called after a class are right.
"""
SMALLEST_PROBABILITY = 1e-12  # that is compared: the logarithm of a smaller one may be minus infinity


class ExportError(RuntimeError):
    """Raised if an exported ONNX file computes something other than the network that was trained."""


class ByteImageClassifier(nn.Module):
    """Computes probabilities (N, classes) from images as files have them, uint8 (N, H, W, C), by a trained network."""

    def __init__(self, network: nn.Module, dataset: Dataset, temperature: float):
        super().__init__()
        self.network, self.mean, self.std, self.temperature = network, dataset.mean, dataset.std, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (N, classes) for uint8 images (N, H, W, C)."""
        logits = self.network((images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)
        return (logits / self.temperature).softmax(1)


def load_network(folder: Path, dataset: Dataset, depth: int | None = None) -> models.TruncatedNetwork:
    """Return the network of a finished run, from its folder, at a depth that it tried (None: the one that it chose), on
    the CPU; RunConflict if the depth was not tried, or its weights are missing, as in committed results.
    """
    run = recipes.read_run(folder)
    depth = depth or run.depth
    tried = pd.read_csv(folder / "depths.csv").dropna(subset="val_acc_pct")["depth"].tolist()
    if depth not in tried:
        raise RunConflict(f"depth {depth} was not tried: choose one of {', '.join(map(str, tried))}")
    file = folder / ("network.safetensors" if depth == run.depth else f"depth{depth:02d}.safetensors")
    if not file.exists():
        raise RunConflict(f"{file} is not there: take its folder away, and the run is made again")
    network = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width).truncate(depth)
    network.load_state_dict(load_file(file))
    return network.eval()


@torch.inference_mode()
def compute_logits(network: nn.Module, split: Split) -> Tensor:
    """Return the logits (N, classes) of a network on the CPU for the images of a split, computed in batches."""
    parts = split.images.cpu().split(metrics.evaluation_batch_size(split.dataset.image_shape))
    return torch.cat([network(split.normalise(part)) for part in parts])


def predict_probabilities(network: nn.Module, split: Split, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities (N, classes) of a network on the CPU for the images of a split."""
    return (compute_logits(network, split) / temperature).softmax(1).numpy()


def fit_temperature(network: nn.Module, split: Split) -> float:
    """Return the temperature by which to divide a network's logits so that a split's labels are likeliest (Guo et al.,
    2017), smoothed as if each class had been seen once more for every image (Platt, 1999): few images make none
    certain.
    """
    logits, labels = compute_logits(network, split).double(), split.labels.cpu()
    smoothed = partial(functional.cross_entropy, target=labels, label_smoothing=1 / (1 + len(labels) / logits.shape[1]))
    return math.exp(minimize_scalar(lambda x: smoothed(logits / math.exp(x)).item(), bounds=(-5, 5)).x)


def write_onnx(network: nn.Module, dataset: Dataset, path: Path, temperature: float = 1.0) -> None:
    """Write a network as ONNX: input uint8 (N, H, W, C), normalised inside; output probabilities (N, classes)."""
    images = torch.zeros(2, *dataset.image_shape[1:], dataset.image_shape[0], dtype=torch.uint8)
    whole = ByteImageClassifier(network, dataset, temperature).to(memory_format=torch.contiguous_format).eval()
    with warnings.catch_warnings(action="ignore"):  # of the exporter's own affairs
        model = torch.onnx.export(
            whole, (images,), input_names=["images"], output_names=["probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, dynamo=True, verbose=False,
        ).model_proto  # fmt: skip
    for node in model.graph.node:  # where in the Python code it came from: most of a small file
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, {"classes": json.dumps(dataset.class_names), "source": "odnlib"})
    write_atomically(path, lambda temporary: onnx.save(model, temporary))


def open_onnx_session(path: Path) -> onnxruntime.InferenceSession:
    """Return an onnxruntime session that runs an ONNX file on the CPU, with as many threads as torch uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def convert_to_onnx_input(images: Tensor) -> np.ndarray:
    """Return uint8 images (N, C, H, W) as an array (N, H, W, C), the input of the ONNX files."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())


def run_onnx(path: Path, images: Tensor) -> np.ndarray:
    """Return the output (N, classes) of an ONNX file for uint8 images (N, C, H, W): probabilities; logits if old."""
    model, parts = open_onnx_session(path), images.split(metrics.evaluation_batch_size(images.shape[1:]))
    return np.concatenate([model.run(None, {"images": convert_to_onnx_input(part)})[0] for part in parts])


def onnx_accuracy_pct(path: Path, split: Split) -> float:
    """Return the accuracy, in %, of an ONNX file on a split."""
    return 100 * float((run_onnx(path, split.images).argmax(1) == split.labels.cpu().numpy()).mean())


def check_onnx_file(path: Path, network: nn.Module, split: Split, temperature: float = 1.0) -> float:
    """Return the largest difference between log-probabilities (they differ as logits do) of an ONNX file and its
    network on a split; ExportError if it exceeds `LARGEST_DIFFERENCE`, or the accuracies differ.
    """
    expected = predict_probabilities(network, split, temperature)
    output, labels = run_onnx(path, split.images), split.labels.cpu().numpy()
    logarithms = [np.log(np.maximum(x, SMALLEST_PROBABILITY)) for x in (output, expected)]
    largest = float(np.abs(logarithms[0] - logarithms[1]).max())
    right = [int((x.argmax(1) == labels).sum()) for x in (output, expected)]
    if largest > LARGEST_DIFFERENCE * max(1.0, float(np.abs(logarithms[1]).max())) or right[0] != right[1]:
        why = f"log-probabilities differ by up to {largest:.2g}, {right[0]} and {right[1]} images right"
        raise ExportError(f"{path}: {why}")
    return largest


def time_onnx_files(paths: dict[str, Path], shape: tuple[int, int, int], batch: int) -> dict[str, float]:
    """Return each file's median milliseconds on the CPU, by name, for a `batch` of images (C, H, W), timed in turns."""
    sessions = {name: open_onnx_session(path) for name, path in paths.items()}
    images = {"images": convert_to_onnx_input(torch.randint(256, (batch, *shape), dtype=torch.uint8))}
    tasks = {name: partial(session.run, None, images) for name, session in sessions.items()}
    return latency.time_in_turns(tasks).median().to_dict()


def export_network(folder: Path, data: Data, to: Path, depth: int, findings: Sequence[str] = ()) -> dict:
    """Write a finished run's network at a depth it tried into the folder `to`: model.onnx, checked on validation
    images, predict.py, model.json, model.safetensors, and a model card, README.md, which begins with the sentences
    `findings`. Return the content of model.json. A depth other than the chosen one is tested here.
    """
    dataset, run, file = data.train.dataset, recipes.read_run(folder), to / "model.onnx"
    network = load_network(folder, dataset, depth)
    to.mkdir(parents=True, exist_ok=True)
    temperature = fit_temperature(network, data.validation)
    write_onnx(network, dataset, file, temperature)
    difference = check_onnx_file(file, network, data.validation, temperature)
    write_atomically(to / "predict.py", lambda path: shutil.copyfile(predict.__file__, path))
    weights = save(network.state_dict())
    write_atomically(to / "model.safetensors", lambda path: path.write_bytes(weights))
    tested = run.test_acc_pct if depth == run.depth else onnx_accuracy_pct(file, data.test)
    classes = list(dataset.class_names) or [str(i) for i in range(dataset.classes)]
    about = {"architecture": run.architecture, "width": run.width, "depth": depth}
    about |= {"image_shape": list(dataset.image_shape), "classes": classes, "mean": dataset.mean, "std": dataset.std}
    about |= {"temperature": temperature, **metrics.measure_size_and_macs(network, dataset.image_shape)}
    about |= {"val_acc_pct": onnx_accuracy_pct(file, data.validation), "test_acc_pct": tested}
    about |= {"test_images": len(data.test)} | ({"goal_pct": run.goal_pct} if run.goal_pct < 100 else {})
    about |= {"findings": list(findings), "onnx_bytes": file.stat().st_size, "onnx_largest_difference": difference}
    write_json(to / "model.json", about)
    card = make_model_card(run, about, dataset) + USAGE_SECTION
    write_atomically(to / "README.md", lambda path: path.write_text(card, encoding="utf-8"))
    return read_json(to / "model.json")


def escape_markdown(text: str) -> str:
    """Return a text with Markdown's signs escaped, so that it is shown as it is: a class may be called a|b or $5."""
    return re.sub(r"([\\`*_{}\[\]<>|$#&~])", r"\\\1", text)


def make_model_card(run: SimpleNamespace, about: dict, dataset: Dataset) -> str:
    """Return a run's model card as Markdown (Mitchell et al., 2019); `about` is the content of model.json."""
    made_by, (channels, height, width) = read_json(run.folder / "provenance.json"), dataset.image_shape
    chain, size = run.architecture == "chain", f"{width}x{height}"
    blocks = f"{about['depth']}" + f" of {run.max_depth}" * (not chain)
    tested = f"{about['test_acc_pct']:.2f} % on {about['test_images']:,} test images"
    if about["depth"] != run.depth:
        tested += f" (that depth {run.depth}, where the search ended, was tested on too)"
    met = round(about["val_acc_pct"], run.search_decimals) >= run.goal_pct  # as the search sees it
    goal = {"goal on validation": f"{run.goal_pct:g} %, {'' if met else 'not '}met"} if run.goal_pct < 100 else {}
    prepared = f"cut square and scaled to {size}" if run.row not in TABLE_1 else f"{size}, as they are"
    prepared += f"; in training shifted by up to {dataset.crop_padding} pixels" * bool(dataset.crop_padding)
    prepared += " and mirrored" * dataset.flip
    network = f"{run.architecture}, {run.width}/64 of its channels, cut off behind block {blocks}"
    if chain:
        network = f"chain of {about['depth']} residual blocks that halve the image, {run.width} channels in the first"
    told = "".join(f"- {line}\n" for text in about.get("findings", ()) for line in text.splitlines())
    table = {
        "classes": ", ".join(map(escape_markdown, about["classes"])),
        "network": network,
        "parameters, float32": f"{about['params']:,}; as PyTorch stores them {1000 * about['size_mb']:,.0f} kB",
        "multiply-accumulates per image": f"{about['macs_m']:.1f} million",
        "accuracy": f"{tested}; {about['val_acc_pct']:.2f} % on validation",
        **goal,
        "images": f"{escape_markdown(dataset.source)}; {prepared}",
        "training": f"rule {run.rule}, profile {run.profile}, seed {run.seed}, {run.epochs} epochs",
        "input of model.onnx": f"`images`: uint8 (N, {height}, {width}, {channels}), as files have them",
        "output": f"`probabilities`: float32 (N, {dataset.classes}), in the order of the classes; of the logits "
        f"divided by {about['temperature']:.3g}, which makes those of the validation images likeliest",
        "made by": f"commit {made_by['commit'] or 'unknown'}, {made_by['start']}",
        "on": made_by["processor"] if made_by["device"] == "cpu" else made_by["device"],
    } | {f"SHA-256 of the {part} images": digest for part, digest in made_by["data_sha256"].items()}
    lines = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    return f"""# {escape_markdown(dataset.title)}: {run.architecture}, {blocks} blocks

Classifies {"grey" if channels == 1 else "colour"} images of {size} pixels into {dataset.classes} classes.

{told}
| | |
|---|---|
{lines}

It knows these classes only: an image of anything else gets one of them too. It was tested on the test images above, and
on no others: test it on yours before anything depends on it. Where photographs of one thing lay in several parts of the
folder, all accuracies are too good.
"""
