"""Notebook 12: pruning and quantisation compared with cutting the depth: bytes, latency, accuracy.

Magnitude pruning removes the smallest weights of all convolutions and linear layers together, then training goes on
(Han et al., 2015). Quantisation is onnxruntime's static one to 8 bits, its ranges calibrated on training images.
"""

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from pathlib import Path
from types import SimpleNamespace

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
from odnlib.files import describe_processor, read_json, write_atomically, write_csv
from odnlib.search import one_cycle_rate
from studies import common, export, latency, plots
from studies.common import STUDY_COLUMNS

CALIBRATION_IMAGES = 256
EPOCHS_AFTER_PRUNING, RATE_AFTER_PRUNING = 3, 0.02
OPTIMALLY_DEEP, WHOLE_NETWORK, UNCOMPRESSED = "optimally deep", "whole", "as trained"
COLOR_OF_NETWORK = {WHOLE_NETWORK: plots.COLOR_WHOLE, OPTIMALLY_DEEP: plots.COLOR_FOUND}
MARKER_OF_METHOD = {UNCOMPRESSED: "o", "int8": "s", "pruned": "^", "pruned + int8": "D"}
QUESTION_NETWORK_METHOD = [("further", OPTIMALLY_DEEP, method) for method in list(MARKER_OF_METHOD)[1:]]
QUESTION_NETWORK_METHOD += [("reach", WHOLE_NETWORK, method) for method in MARKER_OF_METHOD]
RESULTS_FILE = "compression.csv"  # in the folder of a search


def prune_and_retrain(network: nn.Module, sparsity_pct: float, data: Data, seed: int) -> None:
    """Set the smallest `sparsity_pct` % of the weights to zero for good and train the others on, in place."""
    weights = [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=sparsity_pct / 100)
    network.train().to(data.train.images.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), RATE_AFTER_PRUNING, 0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(EPOCHS_AFTER_PRUNING):
        batches = data.train.shuffled_batches(32, False, seeded_generator(seed, "compress", epoch))
        for number, (images, labels) in enumerate(batches):
            progress = (epoch + 32 * number / len(data.train)) / EPOCHS_AFTER_PRUNING
            optimizer.param_groups[0]["lr"] = one_cycle_rate(RATE_AFTER_PRUNING, progress)
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    for module, name in weights:
        prune.remove(module, name)
    network.cpu().eval()


def yield_calibration_images(split: Split) -> Iterator[dict[str, np.ndarray]]:
    """Yield, one by one as ONNX input, the images of a split from which the ranges of 8-bit activations are taken."""
    chosen = torch.randperm(len(split), generator=seeded_generator("calibration"))[:CALIBRATION_IMAGES]
    return ({"images": image[None]} for image in export.convert_to_onnx_input(split.images[chosen]))


def quantise_to_8_bits(path: Path, split: Split, to: Path) -> None:
    """Write the ONNX file at `path` with 8-bit weights and activations to `to`, calibrated on images of `split`."""
    prepared = to.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared)
    reader = SimpleNamespace(get_next=partial(next, yield_calibration_images(split), None))
    quantize_static(
        prepared, to, reader, QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "ReduceMean"],
    )  # fmt: skip
    prepared.unlink()


def export_8_bits(folder: Path, data: Data, about: dict) -> str:
    """Write model-int8.onnx beside an exported model.onnx if it is smaller, and return both sizes and validation
    accuracies in a sentence, which the model card gets, too; `about` is from `export.export_network`.
    """
    small, before = folder / "model-int8.onnx", about["onnx_bytes"]
    quantise_to_8_bits(folder / "model.onnx", data.train, small)
    if (after := small.stat().st_size) >= before:
        small.unlink()
        return f"In 8 bits it would have {after:,} bytes, and not fewer than {before:,}: left out."
    accuracies = f"{export.onnx_accuracy_pct(small, data.validation):.1f} % on validation"
    said = f"{small.name}: {after:,} instead of {before:,} bytes, {accuracies} instead of {about['val_acc_pct']:.1f}."
    card = folder / "README.md"
    text = f"{card.read_text(encoding='utf-8')}\n{said}\n"
    write_atomically(card, lambda path: path.write_text(text, encoding="utf-8"))
    return said


def compress_network(run: Path, name: str, data: Data, folder: Path, sparsities_pct: list[int]) -> Iterator[dict]:
    """Write ONNX files of a finished run's network into `folder`: unchanged, pruned (% of the weights), quantised, and
    both. Yield a record per file: network (`name`), method, sparsity_pct, file, nonzero (weights), bytes, zipped_bytes
    and val_acc_pct.
    """
    dataset, seed = data.train.dataset, recipes.read_run(run).seed
    for sparsity in (0, *sparsities_pct):
        network = export.load_network(run, dataset)
        if sparsity:
            prune_and_retrain(network, sparsity, data, seed)
        plain, quantised = (folder / f"{name.replace(' ', '_')}-sparsity{sparsity}{x}.onnx" for x in ("", "-int8"))
        export.write_onnx(network, dataset, plain)
        quantise_to_8_bits(plain, data.train, quantised)
        nonzero = sum(int(parameter.count_nonzero()) for parameter in network.parameters())
        methods = ("pruned", "pruned + int8") if sparsity else (UNCOMPRESSED, "int8")
        for method, file in zip(methods, (plain, quantised), strict=True):
            record = {"network": name, "method": method, "sparsity_pct": sparsity, "file": file.name}
            record |= {"nonzero": nonzero, "bytes": file.stat().st_size}
            record["zipped_bytes"] = len(zlib.compress(file.read_bytes(), 9))
            yield record | {"val_acc_pct": export.onnx_accuracy_pct(file, data.validation)}


def measure_compression(search: Path, whole: Path, load: Callable[[], Data], sparsities_pct: list[int]) -> None:
    """Compress the networks in the folders of a finished search and of a whole network, and write compression.csv into
    the search's folder, unless it is there. `load` loads the images, `sparsities_pct` % of the weights are taken away
    by pruning. Per network and method, the file with the fewest
    zipped bytes is chosen whose validation accuracy is at most the tolerance below that of the uncompressed optimally
    deep network; only these are tested and timed, in turns.
    """
    if (search / RESULTS_FILE).exists():
        return
    data, folder = load(), search / "compressed"
    folder.mkdir(exist_ok=True)
    networks = {OPTIMALLY_DEEP: search, WHOLE_NETWORK: whole}
    compressed = (compress_network(run, name, data, folder, sparsities_pct) for name, run in networks.items())
    files = pd.DataFrame(chain.from_iterable(compressed))
    files["least_pct"] = files.loc[0, "val_acc_pct"] - common.ALLOWED_ACCURACY_LOSS_PTS  # the first: deep, as trained
    good = files[files["val_acc_pct"] >= files["least_pct"]].sort_values("zipped_bytes")
    chosen = good.groupby(["network", "method"]).head(1)["file"].map(folder.joinpath)
    files["chosen"] = files.index.isin(chosen.index)
    files["test_acc_pct"] = chosen.map(lambda file: export.onnx_accuracy_pct(file, data.test))
    for batch in latency.BATCH_SIZES:
        taken = export.time_onnx_files(chosen.to_dict(), data.test.dataset.image_shape, batch)
        files[f"latency_{batch}_ms"] = pd.Series(taken)
    about = {"threads": torch.get_num_threads(), "processor": describe_processor()}
    write_csv(search / RESULTS_FILE, files.assign(seed=recipes.read_run(search).seed, **about))


def read_results(results_dir: Path | str, profile: str) -> pd.DataFrame:
    """Return the rows, one per ONNX file, of a profile's compression.csv files, with `STUDY_COLUMNS` and folder."""
    tables = [pd.DataFrame()]
    for _, run in common.read_finished_runs(results_dir, profile, "odn").iterrows():
        if (file := run["folder"] / RESULTS_FILE).exists():
            tables.append(pd.read_csv(file).assign(**run[[*STUDY_COLUMNS, "folder", "not_comparable"]]))
    return pd.concat(tables, ignore_index=True)


def summarise_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return a table, one row per study, question and method: the chosen files' zipped bytes divided by those of the
    uncompressed optimally deep network, geometric mean over n seeds (share) with its 95 % interval (low, high); the
    same of bytes (unzipped_share); the difference in test accuracy (test_points) with its interval; without, how many
    seeds lack an accurate enough file; times_faster_1, the speed-up at batch 1. Question `further`: the optimally deep
    network compressed; `reach`: the whole one, which stays larger where the ratio exceeds 1.
    """
    summary = []
    for _, study in results[results["chosen"]].groupby(STUDY_COLUMNS, sort=False):
        about = study.iloc[0][[*STUDY_COLUMNS, "processor", "not_comparable"]].to_dict()
        kinds = {kind: files.set_index("seed") for kind, files in study.groupby(["network", "method"])}
        every = kinds[OPTIMALLY_DEEP, UNCOMPRESSED]
        for question, network, method in QUESTION_NETWORK_METHOD:
            files = kinds.get((network, method), every[:0])
            deep = every.loc[files.index]
            share, unzipped = (np.log(files[size] / deep[size]) for size in ("zipped_bytes", "bytes"))
            record = about | {"question": question, "network": network, "method": method, "n": len(files)}
            record |= {"without": len(every) - len(files), "unzipped_share": np.exp(unzipped.mean())}
            record |= zip(("share", "low", "high"), np.exp(common.confidence_interval(share)), strict=True)
            points = common.confidence_interval(files["test_acc_pct"] - deep["test_acc_pct"])
            record |= zip(("test_points", "test_low", "test_high"), points, strict=True)
            summary.append(record | {"times_faster_1": (deep["latency_1_ms"] / files["latency_1_ms"]).median()})
    return pd.DataFrame(summary)


def judge_claim(summary: pd.DataFrame, question: str) -> tuple[str, str]:
    """Return (verdict, reason) on a question of `summarise_over_seeds`, from the study with the most evidence:
    `further` holds if a method makes the optimally deep network smaller with every seed, `reach` if no method makes the
    whole network as small. Zipped files decide, the size on disk that Table I has.
    """
    study = common.select_strongest_study(summary, STUDY_COLUMNS, lambda study: study["n"].max())
    methods, first = study[study["question"] == question], study.iloc[0]
    sure = methods[methods["without"] == 0]  # every seed has a file that is accurate enough
    if question == "further":
        holds, fails = (sure["high"] < 1).any(), len(sure) and (sure["low"] > 1).all()
    else:
        holds = ((methods["low"] > 1) | (methods["n"] == 0)).all()
        fails = (sure["high"] < 1).any()
    judged = common.CLAIM_HOLDS if holds else common.CLAIM_FAILS if fails else common.CLAIM_OPEN
    where = ", ".join(filter(None, (f"{first['row']} by {first['rule']}", first["settings"], first["processor"])))
    why = "; ".join([*map(describe_summary, methods.sort_values("share").itertuples()), where])  # the smallest first
    return common.qualify_verdict(judged, why, first["not_comparable"])


def judge_published(results_dir: Path) -> tuple[str, str]:
    """Return (verdict, reason): are the published networks of full width smaller in 8 bits, at no loss that counts?"""
    told, lost = [], []
    for about in map(read_json, sorted(results_dir.glob("*/networks/*/model.json"))):
        if eight := about.get("int8"):
            sizes = f"{eight['size_mb']:.2f} instead of {eight['plain_mb']:.2f} MB"
            test, validation = (eight[name] - about[name] for name in ("test_acc_pct", "val_acc_pct"))
            told.append(f"{about['row']} at depth {about['depth']} {sizes}, {test:+.2f} points on test")
            told[-1] += f" and {validation:+.2f} on validation"
            lost.append(-min(test, validation) if eight["size_mb"] < eight["plain_mb"] else 100)
    why = f"at full width, published networks in 8 bits: {', '.join(told)}"
    fine = max(lost, default=0) <= common.ALLOWED_ACCURACY_LOSS_PTS
    return ((common.CLAIM_HOLDS if fine else common.CLAIM_FAILS), why) if told else ("not measured", "")


def describe_summary(answer: pd.Series) -> str:
    """Return a row of `summarise_over_seeds` as a sentence."""
    name = f"{answer.network} network, {answer.method}"
    if not answer.n:
        return f"{name}: no file is accurate enough"
    without = f", {answer.without} seeds without an accurate enough file" if answer.without else ""
    interval = common.describe_interval(answer.low, answer.high, answer.n, ".2f") + without
    return (
        f"{name}: {answer.share:.2f} of the optimally deep one's zipped bytes as trained ({interval}; "
        f"{answer.unzipped_share:.2f} unzipped), {answer.test_points:+.2f} points of test accuracy, "
        f"{answer.times_faster_1:.2f} times as fast at batch 1"
    )


def draw_results(results: pd.DataFrame) -> Figure:
    """Draw validation accuracy against zipped bytes of one study's ONNX files, a panel per seed; chosen ones filled."""
    seeds, accuracy = results["seed"].nunique(), results["val_acc_pct"]
    lowest = max(accuracy.min() - 0.5, results["least_pct"].min() - 1)
    drawn, axes = plots.make_axes(1, seeds, 4.2, sharey=True, squeeze=False)
    for axis, (seed, of_seed) in zip(axes[0], results.groupby("seed"), strict=True):
        for network, method, chosen in product(COLOR_OF_NETWORK, MARKER_OF_METHOD, (False, True)):
            files = of_seed[(of_seed[["network", "method", "chosen"]] == [network, method, chosen]).all(axis=1)]
            filled = {"ms": 8, "mec": "0.1", "mew": 1.5, "label": f"{network}, {method}"}
            look = {"color": COLOR_OF_NETWORK[network]} | (filled if chosen else {"fillstyle": "none"})
            place = files["zipped_bytes"] / 1e6, files["val_acc_pct"].clip(lowest)
            axis.plot(*place, MARKER_OF_METHOD[method], **look)
        axis.axhline(of_seed["least_pct"].iloc[0], color=plots.COLOR_GOAL, linestyle="--")
        axis.set(xscale="log", xlabel="zipped file (MB)", title=f"seed {seed}")
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set(ylabel="validation accuracy (%)", ylim=(lowest - 0.3, accuracy.max() + 0.5))
    title = "dashed: the optimally deep network as trained, less the tolerance\n"
    title += "filled: the smallest file of its kind above that; hollow: pruned more or less"
    title += "\nat the lower edge: below it" * bool(accuracy.min() < lowest)
    plots.legend_above(drawn, 3, fontsize=8, title=title)
    return plots.write_caption(drawn, recipes.read_run(results["folder"].iloc[0]), common.list_seeds(results))
