"""Pruning and quantisation of a trained network, beside cutting it off: bytes, speed, accuracy.

Magnitude pruning takes the smallest weights of all convolutions and linear layers together and trains the rest on (Han
et al., 2015); quantisation computes in 8 bits, its ranges calibrated on training images (onnxruntime's static one).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from scipy import stats
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from odnlib import export, results
from odnlib.data import Data, Split, generator
from odnlib.recipes import Recipe
from odnlib.schedule import one_cycle
from odnlib.verdict import comparison

CALIBRATION_IMAGES = 256
SPARSITIES_PCT = (50, 80, 90, 95, 98)  # of the weights that are taken away
METHODS = ("as trained", "int8", "pruned", "pruned + int8")
TOLERANCE_PCT = 0.5  # points of validation accuracy that a compressed network may lose: the paper's


def prunable(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Every convolution's and linear layer's weights."""
    return [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def pruned(network: nn.Module, sparsity_pct: float, data: Data, epochs: int, rate: float, seed: int) -> nn.Module:
    """A copy without the smallest `sparsity_pct` % of its weights, the others trained on for some epochs."""
    thinned = copy.deepcopy(network).to(data.train.images.device)
    weights = prunable(thinned)
    prune.global_unstructured(weights, prune.L1Unstructured, amount=sparsity_pct / 100)
    train_on(thinned, data.train, epochs, rate, seed)
    for module, name in weights:
        prune.remove(module, name)
    return thinned.cpu().eval()


def train_on(network: nn.Module, split: Split, epochs: int, rate: float, seed: int, batch: int = 32) -> None:
    """Some epochs more, as protocol `fast` does them: one cycle of the rate, Nesterov momentum."""
    optimizer = torch.optim.SGD(network.parameters(), rate, 0.9, weight_decay=5e-4, nesterov=True)
    network.to(memory_format=torch.channels_last).train()
    for epoch in range(epochs):
        seen = 0
        for images, labels in split.shuffled_batches(batch, False, generator(seed, "compress", epoch)):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(rate, (epoch + seen / len(split)) / epochs)
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            seen += len(labels)


class Calibration(CalibrationDataReader):
    """The training images whose activations the ranges of the 8 bits are taken from, one by one."""

    def __init__(self, split: Split):
        chosen = torch.randperm(len(split), generator=generator("calibration"))[:CALIBRATION_IMAGES]
        self.images: Iterator[np.ndarray] = iter(export.bytes_of(split.images[chosen.to(split.images.device)]))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"images": image[None]}


def quantise(path: Path, split: Split, to: Path) -> None:
    """Write the ONNX file at `path` with 8-bit weights and activations; ranges from the images of `split`."""
    prepared = to.with_suffix(".prepared.onnx")
    said, level = logging.getLogger(), logging.getLogger().level
    try:
        said.setLevel(logging.ERROR)  # advice about its own preparation, which has just been followed
        quant_pre_process(path, prepared)
        quantize_static(
            prepared, to, Calibration(split), QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "ReduceMean"],
        )  # fmt: skip
    finally:
        said.setLevel(level)
        prepared.unlink(missing_ok=True)


def variants(
    network: nn.Module, name: str, data: Data, folder: Path, epochs: int, rate: float, seed: int
) -> list[dict]:
    """One network as it is, pruned, quantised, and both: written as ONNX files, measured on validation images.

    Returns:
        a line per file: network, method, sparsity_pct, file, bytes, zipped_bytes, nonzero, val_acc_pct.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dataset, lines = data.train.dataset, []
    for sparsity in (0, *SPARSITIES_PCT):
        thinned = pruned(network, sparsity, data, epochs, rate, seed) if sparsity else network
        nonzero = sum(int(parameter.count_nonzero()) for parameter in thinned.parameters())
        plain = folder / f"{name.replace(' ', '_')}-sparsity{sparsity}.onnx"
        export.to_onnx(thinned, dataset, plain)
        quantised = plain.with_name(f"{plain.stem}-int8.onnx")
        quantise(plain, data.train, quantised)
        for file, eight in ((plain, False), (quantised, True)):
            method = " + ".join(["pruned"] * bool(sparsity) + ["int8"] * eight) or "as trained"
            line = {"network": name, "method": method, "sparsity_pct": sparsity, "file": file.name, "nonzero": nonzero}
            line |= {"bytes": file.stat().st_size, "zipped_bytes": export.zipped_bytes(file)}
            lines.append(line | {"val_acc_pct": export.accuracy_pct(export.session(file), data.validation)})
    return lines


def study(search: Path, whole: Path, data: Data, epochs: int = 3, rate: float = 0.02) -> pd.DataFrame:
    """Compress what a finished search and a finished training of the whole network left; kept as compression.csv in
    the folder of the search, and not measured again.

    Of every network and method the file of the fewest zipped bytes is chosen that loses at most `TOLERANCE_PCT` points
    on validation against the optimally deep network as trained. The chosen ones meet the test images, once, and the
    clock, in turns.

    Args:
        epochs, rate: of training after pruning.

    Returns:
        the lines of `variants`, and chosen, least_pct, test_acc_pct, latency_1_ms, latency_128_ms, threads, processor.
    """
    file, folder = search / "compression.csv", search / "compressed"
    if file.exists():
        return pd.read_csv(file)
    seed, lines = results.read_recipe(search).seed, []
    for name, run in {"optimally deep": search, "whole": whole}.items():
        network = export.network_of(run, data.train.dataset)
        lines += variants(network, name, data, folder, epochs, rate, seed)
    made = pd.DataFrame(lines)
    as_trained = (made["network"] == "optimally deep") & (made["method"] == "as trained")
    made["least_pct"] = made.loc[as_trained, "val_acc_pct"].iloc[0] - TOLERANCE_PCT
    good = made[made["val_acc_pct"] >= made["least_pct"]].sort_values("zipped_bytes")
    chosen = good.groupby(["network", "method"]).head(1).index
    made["chosen"] = made.index.isin(chosen)
    paths = {k: folder / made.loc[k, "file"] for k in chosen}
    for k, path in paths.items():
        made.loc[k, "test_acc_pct"] = export.accuracy_pct(export.session(path), data.test)
    for batch in (1, 128):
        taken = export.latency_ms(paths, data.test.dataset.image_shape, batch)
        made[f"latency_{batch}_ms"] = pd.Series(taken)
    made = made.assign(seed=seed, threads=torch.get_num_threads(), processor=results.processor())
    results.write_csv(file, made)
    return pd.read_csv(file)


def studies(results_dir: Path, profile: str) -> Iterator[tuple[Recipe, pd.DataFrame]]:
    """Per kind of search: the first recipe, and the lines of all its seeds."""
    kinds: dict[tuple, list[Path]] = {}
    for file in results.files_of_runs(results_dir / profile, "compression.csv"):
        recipe = results.read_recipe(file.parent)
        kinds.setdefault((recipe.row, recipe.protocol, recipe.tag), []).append(file)
    for files in kinds.values():
        yield results.read_recipe(files[0].parent), pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


def answers(recipe: Recipe, lines: pd.DataFrame) -> pd.DataFrame:
    """One line per question and method: zipped bytes over those of the optimally deep network as trained, mean and 95 %
    interval over seeds (of the logarithm), the same mean of the files as they are, and how the test accuracy differs.

    `further`: the optimally deep network compressed. `reach`: the whole network compressed instead; above 1 it stays
    larger. `without`: seeds of which no file was accurate enough.
    """
    about = {"row": recipe.row, "rule": f"{recipe.architecture}, {recipe.protocol} {recipe.tag}".strip()}
    reason = comparison.why_not_comparable(vars(recipe) | {"tag": recipe.tag})
    about |= {"processor": lines["processor"].iloc[0], "not_comparable": reason}
    made, chosen = [], lines[lines["chosen"]]
    reference = chosen[(chosen["network"] == "optimally deep") & (chosen["method"] == "as trained")].set_index("seed")
    for network, question in {"optimally deep": "further", "whole": "reach"}.items():
        for method in METHODS[question == "further" :]:
            at = chosen[(chosen["network"] == network) & (chosen["method"] == method)].set_index("seed")
            share = np.log(at["zipped_bytes"] / reference["zipped_bytes"]).dropna()
            lost = (at["test_acc_pct"] - reference["test_acc_pct"]).dropna()
            line = {"question": question, "network": network, "method": method, "n": len(share)}
            line |= {"without": len(reference) - len(share)}
            unzipped = np.log(at["bytes"] / reference["bytes"]).dropna()
            line |= dict(zip(("share", "low", "high"), np.exp(interval(share)), strict=True))
            line |= {"unzipped_share": np.exp(unzipped.mean())}
            line |= dict(zip(("test_points", "test_low", "test_high"), interval(lost), strict=True))
            faster = (reference["latency_1_ms"] / at["latency_1_ms"]).median()
            made.append(line | {"times_faster_1": faster} | about)
    return pd.DataFrame(made)


def verdict(question: str, answered: pd.DataFrame) -> str:
    """Whether a claim holds: `further`, that a method makes the optimally deep network smaller with every seed;
    `reach`, that no method makes the whole network as small, open where it is as small only when zipped.
    """
    at = answered[answered["question"] == question]
    if question == "further":
        sure = at[at["without"] == 0]
        clear = (sure["high"] < 1).any(), (at["n"].max() > 2 and (sure["low"] > 1).all())
    else:
        larger = (at["low"] > 1) | (at["n"] == 0)
        smaller = (at["without"] == 0) & (at["high"] < 1) & (at["unzipped_share"] < 1)
        clear = larger.all(), smaller.any()
    return "holds" if clear[0] else "does not hold" if clear[1] else "open"


def sentence(answer: pd.Series) -> str:
    """What one line of `answers` says, in words."""
    name = f"{answer['network']} network, {answer['method']}"
    without = f", {answer['without']} seeds without an accurate enough file" if answer["without"] else ""
    if not answer["n"]:
        return f"{name}: no file is accurate enough"
    sure = f"95 % interval {answer['low']:.2f} to {answer['high']:.2f}" if answer["n"] > 2 else "no interval"
    than = f"{answer['share']:.2f} of the optimally deep one's zipped bytes as trained ({sure}, n = {answer['n']}"
    than += f"{without}; {answer['unzipped_share']:.2f} unzipped)"
    lost = f"{answer['test_points']:+.2f} points of test accuracy"
    return f"{name}: {than}, {lost}, {answer['times_faster_1']:.2f} times as fast at batch 1"


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean and 95 % t-interval; infinitely wide with fewer than three values."""
    mean, n = values.mean(), len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std() / n**0.5 if n > 2 else float("inf")
    return mean, mean - half, mean + half
