"""A network to take away: model.onnx for any runtime, model.safetensors and model.json for PyTorch, a model card.

model.onnx takes images as files have them - uint8 (N, height, width, channels) - and gives logits (N, classes).
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from odnlib import metrics, models, recipes
from odnlib.data import Data, Dataset, Split
from odnlib.files import RunConflict, processor, read_json, replace, write_csv, write_json
from odnlib.models import TruncatedNetwork
from odnlib.recipes import Recipe

CLOSE = 1e-4  # to which logits of model.onnx and of the network may differ


class ExportError(RuntimeError):
    """The exported file does not compute what the network computes."""


class FromBytes(nn.Module):
    """uint8 (N, H, W, C) -> logits: the normalisation of the training images, then the network."""

    def __init__(self, network: nn.Module, dataset: Dataset):
        super().__init__()
        self.network, self.mean, self.std = network, dataset.mean, dataset.std

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)


def network_of(folder: Path, dataset: Dataset, depth: int | None = None) -> TruncatedNetwork:
    """The network that a finished run left at a depth it tried, with its weights; none: the one that it chose.

    Raises:
        RunConflict: where the depth was not tried, or its weights are not there, as in results that were committed.
    """
    run = recipes.read(folder)
    chosen = run.depth
    if depth is not None:
        tried = pd.read_csv(folder / "depths.csv").dropna(subset="val_acc_pct")["depth"].tolist()
        if depth not in tried:
            raise RunConflict(f"depth {depth} was not tried: choose one of {', '.join(map(str, tried))}")
    file = folder / ("network.safetensors" if depth in (None, chosen) else f"depth{depth:02d}.safetensors")
    if not file.exists():
        raise RunConflict(f"{file} is not there: take its folder away, and the run is made again")
    network = models.build(run.architecture, dataset.image_shape[0], dataset.classes, run.width)
    network = network.truncate(depth or chosen)
    network.load_state_dict(load_file(file))
    return network.eval()


def to_onnx(network: nn.Module, dataset: Dataset, path: Path) -> None:
    """Write `network` with its normalisation as an ONNX file for any number of images at a time."""
    channels, height, width = dataset.image_shape
    images = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    whole = FromBytes(network, dataset).to(memory_format=torch.contiguous_format).eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # of the exporter's own affairs
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            whole, (images,), input_names=["images"], output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, dynamo=True, verbose=False,
        )  # fmt: skip
    model = program.model_proto
    for node in model.graph.node:  # where in the Python code it came from: most of a small file
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    for key, value in {"classes": json.dumps(dataset.class_names), "source": "odnlib"}.items():
        model.metadata_props.add(key=key, value=value)
    replace(path, lambda temporary: onnx.save(model, temporary))


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """The ONNX file ready to run on the CPU; `threads` 0: all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def bytes_of(images: Tensor) -> np.ndarray:
    """(N, C, H, W) uint8, as `data` has them -> (N, H, W, C), as the ONNX file wants them."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())


def logits_of(model: onnxruntime.InferenceSession, images: Tensor) -> np.ndarray:
    """Logits (N, classes) of uint8 images (N, C, H, W), in batches."""
    parts = images.split(metrics.evaluation_batch(images.shape[1:]))
    return np.concatenate([model.run(None, {"images": bytes_of(part)})[0] for part in parts])


def accuracy_pct(model: onnxruntime.InferenceSession, split: Split) -> float:
    """Share, in %, of the images that the ONNX file classifies rightly."""
    return 100 * float((logits_of(model, split.images).argmax(1) == split.labels.cpu().numpy()).mean())


@torch.inference_mode()
def check(path: Path, network: nn.Module, split: Split) -> float:
    """The largest difference between the logits of file and network over a split's images.

    Raises:
        ExportError: where it exceeds `CLOSE`, or an accuracy differs.
    """
    model, network = session(path), network.cpu().eval()
    images = Split(split.images.cpu(), split.labels.cpu(), split.dataset)
    batches = images.batches(metrics.evaluation_batch(split.dataset.image_shape))
    expected = torch.cat([network(batch) for batch, _ in batches]).numpy()
    found = logits_of(model, images.images)
    largest = float(np.abs(found - expected).max())
    right = [(logits.argmax(1) == images.labels.numpy()).sum() for logits in (found, expected)]
    if largest > CLOSE * max(1.0, float(np.abs(expected).max())) or right[0] != right[1]:
        raise ExportError(f"{path}: logits differ by up to {largest:.2g}, {right[0]} and {right[1]} images right")
    return largest


def latency_ms(paths: dict[str, Path], shape: tuple[int, int, int], batch: int, rounds: int = 9) -> dict[str, float]:
    """Milliseconds for a batch of images of shape (C, H, W) in onnxruntime, medians over `rounds` taken in turns."""
    models = {name: session(path, torch.get_num_threads()) for name, path in paths.items()}
    images = bytes_of(torch.randint(256, (batch, *shape), dtype=torch.uint8))
    return metrics.in_turns({name: lambda m=m: m.run(None, {"images": images}) for name, m in models.items()}, rounds)


def against_whole(recipe: Recipe, folder: Path, dataset: Dataset, exported: Path) -> pd.DataFrame:
    """The exported network and the deepest one (fresh weights) in onnxruntime, taken in turns.

    Returns:
        a line per batch size: batch, odn_ms, full_ms, latency_ratio, macs_ratio, threads, processor; kept beside the
        export as latency.csv.
    """
    whole = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    paths, lines = {"odn": exported / "model.onnx", "full": exported / ".whole.onnx"}, []
    to_onnx(whole.truncate(recipe.last_depth), dataset, paths["full"])
    macs = pd.read_csv(folder / "depths.csv").set_index("depth")["macs_m"]
    ratio = macs[recipe.last_depth] / macs[read_json(exported / "model.json")["depth"]]
    for batch in (1, 128):
        taken = latency_ms(paths, dataset.image_shape, batch)
        line = {"batch": batch} | {f"{name}_ms": value for name, value in taken.items()}
        ratios = {"latency_ratio": taken["full"] / taken["odn"], "macs_ratio": ratio}
        lines.append(line | ratios | {"threads": torch.get_num_threads(), "processor": processor()})
    paths["full"].unlink()
    write_csv(exported / "latency.csv", lines)
    return pd.DataFrame(lines)


def zipped_bytes(path: Path) -> int:
    """Bytes of a file after zlib's best compression: what zeros and few bits save on disk and on the way."""
    return len(zlib.compress(path.read_bytes(), 9))


def write(folder: Path, data: Data, to: Path, depth: int | None = None) -> dict:
    """Export a network of the finished run in `folder`: model.onnx, model.safetensors, model.json, README.md.

    The file is checked on the validation images. A depth that the run did not choose meets the test images here.

    Args:
        depth: one of those that the run tried; none: the one that it chose.

    Returns:
        what model.json holds.
    """
    dataset, network = data.train.dataset, network_of(folder, data.train.dataset, depth)
    run, made_by = recipes.read(folder), read_json(folder / "provenance.json")
    to.mkdir(parents=True, exist_ok=True)
    to_onnx(network, dataset, to / "model.onnx")
    difference = check(to / "model.onnx", network, data.validation)
    replace(to / "model.safetensors", lambda path: path.write_bytes(save(network.state_dict())))
    model = session(to / "model.onnx")
    chosen = depth in (None, run.depth)
    about = {
        "architecture": run.architecture,
        "width": run.width,
        "depth": depth or run.depth,
        "image_shape": list(dataset.image_shape),
        "classes": list(dataset.class_names) or [str(i) for i in range(dataset.classes)],
        "mean": dataset.mean,
        "std": dataset.std,
        **metrics.structure(network, dataset.image_shape),
        "val_acc_pct": accuracy_pct(model, data.validation),
        "test_acc_pct": run.test_acc_pct if chosen else accuracy_pct(model, data.test),
        "test_images": len(data.test),
        "goal_pct": run.goal_pct,
        "onnx_bytes": (to / "model.onnx").stat().st_size,
        "onnx_largest_difference": difference,
    }
    write_json(to / "model.json", about)
    replace(to / "README.md", lambda path: path.write_text(card(run, made_by, about, dataset)))
    return about


def load(folder: Path) -> TruncatedNetwork:
    """The network that `write` left in `folder`, for PyTorch."""
    about = read_json(folder / "model.json")
    whole = models.build(about["architecture"], about["image_shape"][0], len(about["classes"]), about["width"])
    network = whole.truncate(about["depth"])
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval()


def card(run: SimpleNamespace, made_by: dict, about: dict, dataset: Dataset) -> str:
    """The model card: what, data, metrics, provenance (after Mitchell et al., 2019)."""
    channels, height, width = dataset.image_shape
    size = f"{width}x{height}"
    classes, images = len(about["classes"]), f"uint8 (N, {height}, {width}, {channels})"
    cut = f"cut off behind block {about['depth']} of {run.max_depth} (Optimally Deep Networks)"
    tested = f"{about['test_acc_pct']:.2f} % on {about['test_images']:,} test images"
    if about["depth"] != run.depth:
        tested += f" (that depth {run.depth}, where the search ended, was tested on too)"
    met = round(about["val_acc_pct"], run.search_decimals) >= run.goal_pct  # as the search sees it
    table = {
        "classes": ", ".join(about["classes"]),
        "network": f"{run.architecture}, {run.width}/64 of its channels, {cut}",
        "parameters, float32": f"{about['params']:,}, {about['size_mb']:.2f} MB",
        "multiply-accumulates per image": f"{about['macs_m']:.1f} million",
        "accuracy": f"{tested}; {about['val_acc_pct']:.2f} % on validation",
        "goal on validation": f"{run.goal_pct:g} %, {'' if met else 'not '}met",
        "images": dataset.source,
        "training": f"rule {run.rule}, profile {run.profile}, seed {run.seed}, {run.epochs} epochs",
        "input of model.onnx": f"`images`: {images}, as files have them",
        "output": f"`logits`: float32 (N, {classes}), in the order of the classes",
        "made by": f"commit {made_by['commit']}, {made_by['start']}",
        "on": made_by["processor"],
    } | {f"SHA-256 of the {part} images": digest for part, digest in made_by["data_sha256"].items()}
    lines = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    return f"""# {dataset.title}: {run.architecture}, {about["depth"]} of {run.max_depth} blocks

Classifies {"grey" if channels == 1 else "colour"} images into {classes} classes. They must have {size} pixels:
scale the shorter side down and cut the middle out, as was done with the training images.

| | |
|---|---|
{lines}

It knows these classes only: an image of anything else gets one of them too. It was tested on images held back from
those it was trained on, and on no others: test it on yours before anything depends on it.
"""
