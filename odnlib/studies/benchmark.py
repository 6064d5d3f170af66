"""What `08_benchmark` measures: seconds side by side, the cost of searches, memory. Trains nothing for its own sake."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch.nn import functional

from odnlib import metrics
from odnlib.data import DATASETS, Data, Split
from odnlib.experiment import keep_freed_memory
from odnlib.models import MultiExitNetwork
from odnlib.recipes import Recipe, resolve
from odnlib.results import processor, read_json, write_csv
from odnlib.schedule import Stage
from odnlib.trainer import Training


def line(measure: str, ours: float, reference: float, unit: str, n: int) -> dict:
    """One line of benchmark.csv; the ratio is ours / reference, `n` the number of repetitions or seeds."""
    numbers = {"ours": ours, "reference": reference, "ratio": ours / reference}
    return {"measure": measure, **numbers, "unit": unit, "n": n, "machine": machine()}


def machine() -> str:
    """Device, threads and torch that the measurements were made with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def random_data(row: str, images: int) -> Data:
    """Random bytes in the shape of a row's images: speed does not depend on what they show."""
    dataset, random = DATASETS[row], torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, *dataset.image_shape), dtype=torch.uint8, generator=random)
    split = Split(pixels, torch.randint(dataset.classes, (images,), generator=random), dataset)
    return Data(split, split, split)


def epoch(row: str, depth: int, images: int, **overrides: object) -> Callable[[], object]:
    """One pass of the trainer over random images at one depth (0: the warm-up of all), ready to be timed.

    Freed memory is kept from now on, as in a run; whatever is timed beside it in this process has that too.
    """
    keep_freed_memory()
    recipe = resolve(row, profile="paper", **overrides)
    training = Training(recipe, random_data(row, images), Path(tempfile.gettempdir()))
    if depth:
        training.enter(Stage("depth", depth, 0.01, 1, "carried", 1))

    def once() -> None:
        training.begin_pass()
        training.pass_over_images()

    return once


def prefix_by_prefix(row: str, images: int) -> Callable[[], object]:
    """The released warm-up in the trainer's own layout: per batch one pass per depth, deepest first, then one step."""
    recipe, data = resolve(row, profile="paper"), random_data(row, images)
    dataset = data.train.dataset
    network = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.001, recipe.momentum, weight_decay=recipe.weight_decay)

    def once() -> None:
        for batch, labels in data.train.shuffled_batches(recipe.batch_size, False, torch.Generator()):
            optimizer.zero_grad()
            for depth in range(network.max_depth, 0, -1):
                functional.cross_entropy(network(batch, depth), labels).backward()
            optimizer.step()

    return once


PRODUCT = 2048**3  # multiply-accumulates of one of `matrix_products`


def matrix_products(dtype: torch.dtype = torch.float32) -> dict[str, Callable[[], object]]:
    """A product of two square matrices, computed by either library: the faster one is what the machine can do.

    torch's own product of float32 matrices is MKL's, slow on other makers' processors; convolutions are oneDNN's.
    """
    left, right = torch.randn(2, 2048, 2048).to(dtype)
    image, kernels = left.T[None, :, :, None].contiguous(memory_format=torch.channels_last), right.T[:, :, None, None]
    return {"matmul": lambda: left @ right, "matmul by convolution": lambda: functional.conv2d(image, kernels)}


def computes_in_bfloat16() -> bool:
    """Whether the device has instructions for it; without them it is many times slower than float32."""
    able = torch.cpu.get_capabilities()
    return torch.cuda.is_available() or any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def training_macs(row: str, depth: int, images: int, width: int = 64) -> int:
    """Multiply-accumulates of one pass over `images`: three times the forward pass."""
    recipe, dataset = resolve(row, profile="paper"), DATASETS[row]
    network = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, width)
    return 3 * images * metrics.macs(network.truncate(depth), dataset.image_shape)


def peak_memory_mb(images: int, rounds: int = 1) -> float:
    """Peak resident memory, in 10^6 bytes, of a process that trains ResNet-18 of width 16 on so many 28x28 images.

    The median over `rounds` processes: how much a process takes from the system varies by more than small images need.
    """
    command = [sys.executable, "-m", "odnlib.studies.benchmark", str(images)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(rounds)]
    return statistics.median(float(run.stdout) for run in runs)


def tested_per_depth(recipe: Recipe, folder: Path, test: Split | None) -> pd.Series:
    """Test accuracy in % of every network that a search left, by depth; measured once, kept as test_per_depth.csv."""
    file, result = folder / "test_per_depth.csv", read_json(folder / "result.json")
    if not file.exists():
        dataset, lines = test.dataset, []
        whole = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        for depth in range(recipe.first_depth, result["depth"]):  # the chosen one has been tested
            network = whole.truncate(depth)
            network.load_state_dict(load_file(folder / f"depth{depth:02d}.safetensors"))
            lines.append({"depth": depth, "test_acc_pct": metrics.evaluate(network, test)[1][0]})
        write_csv(file, [*lines, {"depth": result["depth"], "test_acc_pct": result["test_acc_pct"]}])
    return pd.read_csv(file).set_index("depth")["test_acc_pct"]


def cost(recipe: Recipe, folder: Path, test: Split | None = None) -> dict:
    """What a finished run found and what that took: one line of search_costs.csv.

    Args:
        test: needed once, for a search whose networks of all depths have not been tested yet.
    """
    result = read_json(folder / "result.json")
    seconds = pd.read_csv(folder / "timing.csv")["seconds"].sum()
    kept = tested_per_depth(recipe, folder, test) if recipe.variant == "odn" else {}
    named = {name: result[name] for name in ("profile", "row", "variant", "protocol", "seed", "depth", "met_goal")}
    named |= {"epochs": result["epochs"], "goal_pct": recipe.goal_pct}
    named |= {name: result[name] for name in ("val_acc_pct", "test_acc_pct", "train_tmacs")}
    return named | {"train_s": seconds} | {f"test_acc_pct_depth{depth}": value for depth, value in kept.items()}


def equal_depths(costs: pd.DataFrame) -> pd.DataFrame:
    """The searches by `fast` and by `released` of each seed beside each other (`at_equal_depth`)."""
    searches = costs[costs["variant"] == "odn"].to_dict("records")
    by = {(search["row"], search["protocol"], search["seed"]): search for search in searches}
    pairs = [(row, seed) for row, protocol, seed in by if protocol == "fast" and (row, "released", seed) in by]
    return pd.DataFrame([at_equal_depth(by[row, "fast", seed], by[row, "released", seed]) for row, seed in pairs])


def at_equal_depth(fast: dict, released: dict) -> dict:
    """Two searches of one seed beside each other, tested at the shallower of the two depths that they found."""
    depth = min(fast["depth"], released["depth"])
    accuracy = [search[f"test_acc_pct_depth{depth}"] for search in (fast, released)]
    return {
        "row": fast["row"],
        "seed": fast["seed"],
        "goal_pct": fast["goal_pct"],
        "fast_depth": fast["depth"],
        "released_depth": released["depth"],
        "fast_met_goal": fast["met_goal"],
        "equal_depth": depth,
        "fast_test_acc_pct": accuracy[0],
        "released_test_acc_pct": accuracy[1],
        "difference": accuracy[0] - accuracy[1],
        "macs_ratio": fast["train_tmacs"] / released["train_tmacs"],
    }


if __name__ == "__main__":
    epoch("mnist", 1, int(sys.argv[1]), width=16)()
    if sys.platform == "linux":  # where ru_maxrss starts from the parent's peak
        (peak,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
        print(int(peak.split()[1]) * 1024 / 1e6)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
