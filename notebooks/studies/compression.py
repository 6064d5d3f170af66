"""Notebook 12: pruning and quantisation compared with cutting the depth: bytes, latency, accuracy.

Magnitude pruning removes the smallest weights of all convolutions and linear layers together, then training goes on
(Han et al., 2015). Quantisation is onnxruntime's static one to 8 bits, its ranges calibrated on training images.
"""

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from odnlib import recipes
from odnlib.data import Data, Split, seeded_generator
from odnlib.files import describe_processor, write_csv
from odnlib.search import one_cycle_rate
from studies import common, export, latency, plots
from studies.plots import caption

CALIBRATION_IMAGES = 256
SPARSITIES_PCT = (50, 80, 90, 95, 98)  # of the weights that are taken away
EPOCHS, RATE = 3, 0.02  # of training after that
DEEP, WHOLE, AS_TRAINED = "optimally deep", "whole", "as trained"  # networks, and the method that changes nothing
COLORS = {WHOLE: plots.WHOLE, DEEP: plots.FOUND}
METHODS = {AS_TRAINED: "o", "int8": "s", "pruned": "^", "pruned + int8": "D"}  # with their markers
QUESTIONS = [("further", DEEP, method) for method in list(METHODS)[1:]] + [("reach", WHOLE, x) for x in METHODS]
RECORD = "compression.csv"  # in the folder of a search
STUDY_KEYS = ["profile", "row", "rule", "settings"]  # what its seeds have in common


def prune_and_train(network: nn.Module, sparsity_pct: float, data: Data, seed: int) -> None:
    """Set the smallest `sparsity_pct` % of the weights to zero for good and train the others on, in place."""
    weights = [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=sparsity_pct / 100)
    network.train().to(data.train.images.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), RATE, 0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(EPOCHS):
        batches = data.train.shuffled_batches(32, False, seeded_generator(seed, "compress", epoch))
        for number, (images, labels) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = one_cycle_rate(RATE, (epoch + 32 * number / len(data.train)) / EPOCHS)
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    for module, name in weights:
        prune.remove(module, name)
    network.cpu().eval()


def calibration(split: Split) -> Iterator[dict[str, np.ndarray]]:
    """Yield, one by one, the training images from which the ranges of the 8-bit activations are taken."""
    chosen = torch.randperm(len(split), generator=seeded_generator("calibration"))[:CALIBRATION_IMAGES]
    return ({"images": image[None]} for image in export.bytes_of(split.images[chosen]))


def quantise(path: Path, split: Split, to: Path) -> None:
    """Write the ONNX file at `path` with 8-bit weights and activations to `to`, calibrated on images of `split`."""
    prepared = to.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared)
    reader = SimpleNamespace(get_next=partial(next, calibration(split), None))
    quantize_static(
        prepared, to, reader, QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "ReduceMean"],
    )  # fmt: skip
    prepared.unlink()


def compressed(run: Path, name: str, data: Data, folder: Path) -> Iterator[dict]:
    """Write ONNX files of a run's network unchanged, pruned, quantised, and both; yield a line (dict) per file."""
    dataset, seed = data.train.dataset, recipes.read_run(run).seed
    for sparsity in (0, *SPARSITIES_PCT):
        network = export.network_of(run, dataset)
        if sparsity:
            prune_and_train(network, sparsity, data, seed)
        plain, quantised = (folder / f"{name.replace(' ', '_')}-sparsity{sparsity}{x}.onnx" for x in ("", "-int8"))
        export.to_onnx(network, dataset, plain)
        quantise(plain, data.train, quantised)
        nonzero = sum(int(parameter.count_nonzero()) for parameter in network.parameters())
        methods = ("pruned", "pruned + int8") if sparsity else (AS_TRAINED, "int8")
        for method, file in zip(methods, (plain, quantised), strict=True):
            line = {"network": name, "method": method, "sparsity_pct": sparsity, "file": file.name, "nonzero": nonzero}
            line |= {"bytes": file.stat().st_size, "zipped_bytes": len(zlib.compress(file.read_bytes(), 9))}
            yield line | {"val_acc_pct": export.accuracy_pct(file, data.validation)}


def measure(search: Path, whole: Path, images: Callable[[], Data]) -> None:
    """Compress the networks of a finished search and of a full network; write compression.csv into the search's folder.
    Does nothing if that file exists. `images` loads the data.

    Per network and method, the file with the fewest zipped bytes is chosen whose validation accuracy is at most the
    tolerance below that of the uncompressed optimally deep network. Only chosen files are tested and timed, in turns.
    """
    if (search / RECORD).exists():
        return
    data, folder = images(), search / "compressed"
    folder.mkdir(exist_ok=True)
    files = pd.DataFrame([*compressed(search, DEEP, data, folder), *compressed(whole, WHOLE, data, folder)])
    files["least_pct"] = files.loc[0, "val_acc_pct"] - common.ALLOWED_LOSS_PCT  # the first: optimally deep, as trained
    good = files[files["val_acc_pct"] >= files["least_pct"]].sort_values("zipped_bytes")
    chosen = good.groupby(["network", "method"]).head(1)["file"].map(folder.joinpath)
    files["chosen"] = files.index.isin(chosen.index)
    files["test_acc_pct"] = chosen.map(lambda file: export.accuracy_pct(file, data.test))
    for batch in latency.BATCHES:
        taken = export.latency_ms(chosen.to_dict(), data.test.dataset.image_shape, batch)
        files[f"latency_{batch}_ms"] = pd.Series(taken)
    about = {"threads": torch.get_num_threads(), "processor": describe_processor()}
    write_csv(search / RECORD, files.assign(seed=recipes.read_run(search).seed, **about))


def table(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return the lines of all searches' compression.csv, with the columns `STUDY_KEYS`, folder and not_comparable."""
    lines = []
    for _, run in common.finished(results_dir, profile, "odn").iterrows():
        if (run["folder"] / RECORD).exists():
            lines.append(pd.read_csv(run["folder"] / RECORD).assign(**run[[*STUDY_KEYS, "folder", "not_comparable"]]))
    return pd.concat([pd.DataFrame(), *lines], ignore_index=True)


def answers(lines: pd.DataFrame) -> pd.DataFrame:
    """Return, per compression study, question and method, the chosen files' zipped bytes divided by those of the
    uncompressed optimally deep network: geometric mean over seeds (`share`) with its 95 % interval; the same for
    unzipped bytes; and the difference in test accuracy.

    Question `further`: the optimally deep network compressed. `reach`: the full network compressed instead, which stays
    larger where the ratio exceeds 1. Column `without` counts seeds without an accurate enough file.
    """
    answered = []
    for _, study in lines[lines["chosen"]].groupby(STUDY_KEYS, sort=False):
        about = study.iloc[0][[*STUDY_KEYS, "processor", "not_comparable"]].to_dict()
        kinds = {kind: files.set_index("seed") for kind, files in study.groupby(["network", "method"])}
        every = kinds[DEEP, AS_TRAINED]
        for question, network, method in QUESTIONS:
            files = kinds.get((network, method), every[:0])
            deep = every.loc[files.index]
            share, unzipped = (np.log(files[size] / deep[size]) for size in ("zipped_bytes", "bytes"))
            line = about | {"question": question, "network": network, "method": method, "n": len(files)}
            line |= {"without": len(every) - len(files), "unzipped_share": np.exp(unzipped.mean())}
            line |= zip(("share", "low", "high"), np.exp(common.interval(share)), strict=True)
            points = common.interval(files["test_acc_pct"] - deep["test_acc_pct"])
            line |= zip(("test_points", "test_low", "test_high"), points, strict=True)
            answered.append(line | {"times_faster_1": (deep["latency_1_ms"] / files["latency_1_ms"]).median()})
    return pd.DataFrame(answered)


def verdict(answered: pd.DataFrame, question: str) -> tuple[str, str]:
    """Return (verdict, reason) on a compression claim, from the study with the most evidence.

    `further` holds if a method makes the optimally deep network smaller with every seed; `reach` holds if no method
    makes the full network as small. Zipped files decide, the size on disk that Table I has.
    """
    study = common.most_telling(answered, STUDY_KEYS, lambda study: study["n"].max())
    methods, first = study[study["question"] == question], study.iloc[0]
    sure = methods[methods["without"] == 0]  # every seed has a file that is accurate enough
    if question == "further":
        holds, fails = (sure["high"] < 1).any(), len(sure) and (sure["low"] > 1).all()
    else:
        holds = ((methods["low"] > 1) | (methods["n"] == 0)).all()
        fails = (sure["high"] < 1).any()
    judged = common.HOLDS if holds else common.FAILS if fails else common.OPEN
    where = ", ".join(filter(None, (f"{first['row']} by {first['rule']}", first["settings"], first["processor"])))
    return common.qualified(judged, "; ".join([*map(sentence, methods.itertuples()), where]), first["not_comparable"])


def sentence(answer: pd.Series) -> str:
    """Return one line of the compression `answers` as a sentence."""
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
    """Draw validation accuracy against zipped bytes of every file of one compression study; chosen files are filled."""
    seeds, accuracy = lines["seed"].nunique(), lines["val_acc_pct"]
    lowest = max(accuracy.min() - 0.5, lines["least_pct"].min() - 7)
    drawn, axes = plt.subplots(1, seeds, figsize=(plots.WIDTH, 4.2), layout="constrained", sharey=True, squeeze=False)
    for axis, (seed, of_seed) in zip(axes[0], lines.groupby("seed"), strict=True):
        for network, method, chosen in product(COLORS, METHODS, (False, True)):
            files = of_seed[(of_seed[["network", "method", "chosen"]] == [network, method, chosen]).all(axis=1)]
            filled = {"ms": 8, "mec": "0.1", "mew": 1.5, "label": f"{network}, {method}"}
            look = {"color": COLORS[network]} | (filled if chosen else {"fillstyle": "none"})
            axis.plot(files["zipped_bytes"] / 1e6, files["val_acc_pct"].clip(lowest), METHODS[method], **look)
        axis.axhline(of_seed["least_pct"].iloc[0], color=plots.GOAL, linestyle="--")
        axis.set(xscale="log", xlabel="zipped file (MB)", title=f"seed {seed}")
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set(ylabel="validation accuracy (%)", ylim=(lowest - 0.3, accuracy.max() + 0.5))
    title = "dashed: optimally deep network as trained, less the tolerance\nfilled: smallest of its kind above that"
    title += "; markers on the lower edge lie below it" * bool(accuracy.min() < lowest)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8, title=title)
    return caption(drawn, recipes.read_run(lines["folder"].iloc[0]), common.seeds_of(lines))


def write(results_dir: Path | str, profile: str) -> None:
    """Write the compression study's compression.csv, compression_answers.csv and figures."""
    common.write_study(results_dir, table(results_dir, profile), "compression", STUDY_KEYS, figure, answers)
