"""Notebook 12: pruning and quantisation of a trained network, beside cutting it off: bytes, speed, accuracy.

Magnitude pruning takes the smallest weights of all convolutions and linear layers together and trains the rest on (Han
et al., 2015); quantisation computes in 8 bits, its ranges calibrated on training images (onnxruntime's static one).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from odnlib import recipes
from odnlib.data import Data, Split, generator
from odnlib.files import processor, write_csv, write_table
from odnlib.plots import BLUE, GREEN, ORANGE, caption
from odnlib.search import one_cycle
from studies import common, export

CALIBRATION_IMAGES = 256
SPARSITIES_PCT = (50, 80, 90, 95, 98)  # of the weights that are taken away
EPOCHS, RATE = 3, 0.02  # of training after that
DEEP, WHOLE, AS_TRAINED = "optimally deep", "whole", "as trained"  # networks, and the method that changes nothing
COLORS = {WHOLE: ORANGE, DEEP: BLUE}
METHODS = {AS_TRAINED: "o", "int8": "s", "pruned": "^", "pruned + int8": "D"}  # with their markers
QUESTIONS = [("further", DEEP, method) for method in METHODS if method != AS_TRAINED]
QUESTIONS += [("reach", WHOLE, method) for method in METHODS]
RECORD = "compression.csv"  # in the folder of a search
STUDY = ["profile", "row", "rule", "settings"]  # what its seeds have in common


def prunable(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Every convolution's and linear layer's weights."""
    return [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def pruned(network: nn.Module, sparsity_pct: float, data: Data, seed: int) -> nn.Module:
    """A copy without the smallest `sparsity_pct` % of its weights, the others trained on as rule `equal` trains."""
    thinned = copy.deepcopy(network).to(data.train.images.device).train()
    prune.global_unstructured(prunable(thinned), prune.L1Unstructured, amount=sparsity_pct / 100)
    thinned.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(thinned.parameters(), RATE, 0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(EPOCHS):
        batches = data.train.shuffled_batches(32, False, generator(seed, "compress", epoch))
        for number, (images, labels) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(RATE, (epoch + 32 * number / len(data.train)) / EPOCHS)
            optimizer.zero_grad()
            functional.cross_entropy(thinned(images), labels).backward()
            optimizer.step()
    for module, name in prunable(thinned):
        prune.remove(module, name)
    return thinned.cpu().eval()


class Calibration(CalibrationDataReader):
    """The training images whose activations the ranges of the 8 bits are taken from, one by one."""

    def __init__(self, split: Split):
        chosen = torch.randperm(len(split), generator=generator("calibration"))[:CALIBRATION_IMAGES]
        images = export.bytes_of(split.images[chosen.to(split.images.device)])
        self.inputs = iter([{"images": image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def quantise(path: Path, split: Split, to: Path) -> None:
    """Write the ONNX file at `path` with 8-bit weights and activations; ranges from the images of `split`."""
    prepared = to.with_suffix(".prepared.onnx")
    logging.disable(logging.WARNING)  # advice about its own preparation, which has just been followed
    try:
        quant_pre_process(path, prepared)
        quantize_static(
            prepared, to, Calibration(split), QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "ReduceMean"],
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
        prepared.unlink(missing_ok=True)


def variants(network: nn.Module, name: str, data: Data, folder: Path, seed: int) -> list[dict]:
    """One network as it is, pruned, quantised, and both: a line per ONNX file, measured on validation images."""
    lines = []
    for sparsity in (0, *SPARSITIES_PCT):
        thinned = pruned(network, sparsity, data, seed) if sparsity else network
        nonzero = sum(int(parameter.count_nonzero()) for parameter in thinned.parameters())
        plain = folder / f"{name.replace(' ', '_')}-sparsity{sparsity}.onnx"
        quantised = plain.with_name(f"{plain.stem}-int8.onnx")
        export.to_onnx(thinned, data.train.dataset, plain)
        quantise(plain, data.train, quantised)
        for file in (plain, quantised):
            method = " + ".join(["pruned"] * bool(sparsity) + ["int8"] * (file == quantised)) or AS_TRAINED
            line = {"network": name, "method": method, "sparsity_pct": sparsity, "file": file.name, "nonzero": nonzero}
            line |= {"bytes": file.stat().st_size, "zipped_bytes": export.zipped_bytes(file)}
            lines.append(line | {"val_acc_pct": export.accuracy_pct(export.session(file), data.validation)})
    return lines


def measure(search: Path, whole: Path, images: Callable[[], Data]) -> None:
    """Compress what a finished search and a finished training of the whole network left, once; kept as compression.csv
    in the search's folder. `images` loads them.

    Of every network and method the file of the fewest zipped bytes is chosen that loses at most the tolerance on
    validation against the optimally deep network as trained. The chosen ones meet test images and clock, in turns.
    """
    if (search / RECORD).exists():
        return
    data, seed, folder, lines = images(), recipes.read(search).seed, search / "compressed", []
    folder.mkdir(exist_ok=True)
    for name, run in {DEEP: search, WHOLE: whole}.items():
        lines += variants(export.network_of(run, data.train.dataset), name, data, folder, seed)
    files = pd.DataFrame(lines)
    deep = files[(files["network"] == DEEP) & (files["method"] == AS_TRAINED)]
    files["least_pct"] = deep["val_acc_pct"].iloc[0] - common.TOLERANCE_PCT
    good = files[files["val_acc_pct"] >= files["least_pct"]].sort_values("zipped_bytes")
    paths = {k: folder / files.loc[k, "file"] for k in good.groupby(["network", "method"]).head(1).index}
    files["chosen"] = files.index.isin(paths)
    files["test_acc_pct"] = pd.Series({k: export.accuracy_pct(export.session(paths[k]), data.test) for k in paths})
    for batch in (1, 128):
        files[f"latency_{batch}_ms"] = pd.Series(export.latency_ms(paths, data.test.dataset.image_shape, batch))
    write_csv(search / RECORD, files.assign(seed=seed, threads=torch.get_num_threads(), processor=processor()))


def table(results_dir: Path | str, profile: str = "*") -> pd.DataFrame:
    """The lines of every search's compression.csv, with the columns of `STUDY`, folder and not_comparable."""
    runs, lines = common.finished(results_dir, profile, "odn"), []
    for _, run in runs.assign(settings=common.shared(runs, set())).iterrows():
        if (run["folder"] / RECORD).exists():
            lines.append(pd.read_csv(run["folder"] / RECORD).assign(**run[[*STUDY, "folder", "not_comparable"]]))
    return pd.concat([pd.DataFrame(), *lines], ignore_index=True)


def answers(lines: pd.DataFrame) -> pd.DataFrame:
    """Of the lines of `table`, per study, question and method: zipped bytes over those of the optimally deep network as
    trained, mean and 95 % interval over seeds (of the logarithm), the same mean of the files as they are, and how the
    test accuracy differs.

    `further`: the optimally deep network compressed. `reach`: the whole network compressed instead; above 1 it stays
    larger. `without`: seeds of which no file was accurate enough.
    """
    answered = []
    for _, study in lines[lines["chosen"]].groupby(STUDY, sort=False) if len(lines) else ():
        kinds = {kind: files.set_index("seed") for kind, files in study.groupby(["network", "method"])}
        deep, about = kinds[DEEP, AS_TRAINED], study.iloc[0][[*STUDY, "processor", "not_comparable"]].to_dict()
        for question, network, method in QUESTIONS:
            files = kinds.get((network, method), deep[:0])
            share, unzipped = (np.log(files[size] / deep[size]).dropna() for size in ("zipped_bytes", "bytes"))
            points = (files["test_acc_pct"] - deep["test_acc_pct"]).dropna()
            line = about | {"question": question, "network": network, "method": method}
            line |= {"n": len(share), "without": len(deep) - len(share), "unzipped_share": np.exp(unzipped.mean())}
            line |= dict(zip(("share", "low", "high"), np.exp(common.interval(share)), strict=True))
            line |= dict(zip(("test_points", "test_low", "test_high"), common.interval(points), strict=True))
            answered.append(line | {"times_faster_1": (deep["latency_1_ms"] / files["latency_1_ms"]).median()})
    return pd.DataFrame(answered)


def verdict(answered: pd.DataFrame, question: str) -> tuple[str, str]:
    """Whether a claim holds in the most telling study of `answers`, and why.

    `further` holds if a method makes the optimally deep network smaller with every seed; `reach` if no method makes the
    whole network as small, and is open where it is as small only when zipped.
    """
    study = common.most_telling(answered, STUDY, lambda study: study["n"].max())
    methods, first = study[study["question"] == question], study.iloc[0]
    sure = methods[methods["without"] == 0]  # every seed has a file that is accurate enough
    if question == "further":
        holds, fails = (sure["high"] < 1).any(), methods["n"].max() > 2 and (sure["low"] > 1).all()
    else:
        holds = ((methods["low"] > 1) | (methods["n"] == 0)).all()
        fails = ((sure["high"] < 1) & (sure["unzipped_share"] < 1)).any()
    judged = common.HOLDS if holds else common.FAILS if fails else common.OPEN
    where = ", ".join(filter(None, (f"{first['row']} by {first['rule']}", first["settings"], first["processor"])))
    return common.at_scale(judged, "; ".join([*map(sentence, methods.itertuples()), where]), first["not_comparable"])


def sentence(answer: pd.Series) -> str:
    """What one line of `answers` says, in words."""
    name = f"{answer.network} network, {answer.method}"
    if not answer.n:
        return f"{name}: no file is accurate enough"
    without = f", {answer.without} seeds without an accurate enough file" if answer.without else ""
    sure = common.between(answer.low, answer.high, answer.n, ".2f") + without
    return (
        f"{name}: {answer.share:.2f} of the optimally deep one's zipped bytes as trained ({sure}; "
        f"{answer.unzipped_share:.2f} unzipped), {answer.test_points:+.2f} points of test accuracy, "
        f"{answer.times_faster_1:.2f} times as fast at batch 1"
    )


def figure(lines: pd.DataFrame) -> Figure:
    """Validation accuracy against bytes of every file of one study of `table`; those chosen are filled."""
    seeds = lines["seed"].nunique()
    lowest = max(lines["val_acc_pct"].min() - 0.5, lines["least_pct"].min() - 7)
    size = max(10, 4.5 * seeds), 5.4
    drawn, axes = plt.subplots(1, seeds, figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axis, (seed, of_seed) in zip(axes[0], lines.groupby("seed"), strict=True):
        kinds = dict(iter(of_seed.groupby(["network", "method", "chosen"])))
        for network, method, chosen in product(COLORS, METHODS, (False, True)):
            files = kinds.get((network, method, chosen), of_seed[:0])
            points = files["zipped_bytes"] / 1e6, files["val_acc_pct"].clip(lowest)
            filled = {"ms": 10, "mec": "0.1", "mew": 1.5, "label": f"{network}, {method}"}
            look = filled if chosen else {"fillstyle": "none"}
            axis.plot(*points, METHODS[method], color=COLORS[network], **look)
        axis.axhline(of_seed["least_pct"].iloc[0], color=GREEN, linestyle="--")
        axis.set(xscale="log", xlabel="zipped file (MB)", title=f"seed {seed}")
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("validation accuracy (%)")
    axes[0, 0].set_ylim(lowest - 0.3, lines["val_acc_pct"].max() + 0.5)
    title = "dashed: optimally deep network as trained, less the tolerance\nfilled: smallest of its kind above that"
    title += "; markers on the lower edge lie below it" * bool(lines["val_acc_pct"].min() < lowest)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9, title=title)
    return caption(drawn, recipes.read(lines["folder"].iloc[0]), common.seeds_of(lines))


def write(results_dir: Path | str, profile: str) -> None:
    """compression.csv, compression_answers.csv, and a figure per study."""
    if len(lines := table(results_dir, profile)):
        common.write_studies(results_dir, lines, "compression", STUDY, figure)
        write_table(Path(results_dir) / profile / "compression_answers.csv", answers(lines))
