"""Find the depth that any blocks need for any images in one call: every depth is trained alike."""

import copy
import dataclasses
import hashlib
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from odnlib import data, experiment, recipes
from odnlib.architectures import GlobalAveragePool
from odnlib.data import Data, Dataset, Split
from odnlib.models import MultiExitNetwork, TruncatedNetwork
from odnlib.presets import epochs_for_own_images


@dataclasses.dataclass(frozen=True)
class OptimalDepth:
    """Holds what `optimal_depth` found: the network cut at the depth found, its accuracy, and all depths tried."""

    network: TruncatedNetwork  # stem, the first `depth` blocks and a linear head; images (N, C, H, W) -> logits
    depth: int  # number of blocks
    met_goal: bool  # whether it reached the target accuracy on validation
    test_acc_pct: float  # of `network`, on images that nothing was chosen by
    table: pd.DataFrame  # a row for each depth: params, size_mb, macs_m, epochs, val_acc_pct, chosen
    by_products: dict[int, TruncatedNetwork]  # the networks of all depths tried, by depth


def optimal_depth(
    stem: nn.Module, blocks: list[nn.Module], images: Tensor | TorchDataset, labels: Tensor | None = None, *,
    target_pct: float, epochs: int | None = None, held_out: float = 0.15, folder: Path | str | None = None,
    seed: int = 0, device: str = "auto", **settings: object,
) -> OptimalDepth:  # fmt: skip
    """Train one block, then two, three, ..., alike, until a validation accuracy is met; return an `OptimalDepth`.

    Args:
        stem, blocks: images -> features (N, C, H, W) or (N, F), then features -> features; copies are trained from
            their present weights, the originals stay as they are.
        images: (N, C, H, W), bytes or floats (used as they are); or a dataset of pairs (image, label).
        labels: (N,), whole numbers from 0. target_pct: validation accuracy to reach, in %.
        epochs: of each depth; by default 16, and more where images are few (`presets.epochs_for_own_images`).
        held_out: share of the images kept for validation, and as many for the test.
        folder: keeps the training run, which can then be continued; by default nothing is kept.
        device: auto, cpu, cuda ... settings: of `odnlib.recipes.Recipe`, e.g. batch_size=64 or rate=0.05.

    Raises:
        RecipeError: invalid settings or device. DataError: images and labels do not match.
    """
    splits = split_images(images, labels, held_out, seed, experiment.choose_device(device))
    dataset, epochs = splits.train.dataset, epochs or epochs_for_own_images(len(splits.train))
    torch.manual_seed(seed)
    network = add_exits(copy.deepcopy(stem), copy.deepcopy(list(blocks)), dataset)
    digest = hashlib.sha256(f"{stem}{blocks}{[part.sha256() for part in vars(splits).values()]}".encode())
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    limits = {"target_pct": target_pct, "depth_epochs": epochs, "full_epochs": epochs}
    row = f"own_blocks_{digest.hexdigest()[:8]}"
    recipe = recipes.resolve(row, "odn", "quick", "equal", seed, **limits | settings)
    recipe = dataclasses.replace(recipe, architecture="blocks", last_depth=network.max_depth)
    sizes = ", ".join(f"{len(part)} for {name}" for name, part in vars(splits).items())
    print(f"{epochs} epochs a depth, rate {recipe.rate:g}, batches of {recipe.batch_size}; images: {sizes}")
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        run = experiment.run(recipe, lambda: splits, place, network=lambda: copy.deepcopy(network))
        found, table = recipes.read_run(run), pd.read_csv(run / "depths.csv").drop(columns="warmup_val_acc_pct")
        tried = {depth: network.truncate(depth) for depth in table.loc[table["epochs"] > 0, "depth"]}
        for depth, cut in tried.items():
            cut.load_state_dict(load_file(run / f"depth{depth:02d}.safetensors"))
            cut.eval()
    return OptimalDepth(tried[found.depth], found.depth, found.met_goal, found.test_acc_pct, table, tried)


def split_images(images: Tensor | TorchDataset, labels: Tensor | None, held_out: float, seed: int, device: str) -> Data:
    """Return images and labels, split by the seed; validation and test get the share `held_out` each; or DataError."""
    if labels is None:
        pairs = [images[number] for number in range(len(images))]
        images, labels = torch.stack([x for x, _ in pairs]), torch.tensor([int(label) for _, label in pairs])
    least = round(held_out * len(labels))
    if images.ndim != 4 or len(images) != len(labels) or not 1 <= least <= len(labels) // 3 or int(labels.min()) < 0:
        given = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}, held_out {held_out}"
        raise data.DataError(
            f"{given}: images are (N, C, H, W), labels (N,) from 0, and held_out leaves a third or more for training"
        )
    order = torch.randperm(len(labels), generator=data.seeded_generator(seed, "held out"))
    dataset = Dataset("own images", "tensors", tuple(images.shape[1:]), int(labels.max()) + 1, least)
    parts = order[: -2 * least], order[-2 * least : -least], order[-least:]
    return Data(*(Split(images[part].to(device), labels[part].long().to(device), dataset) for part in parts))


@torch.no_grad()
def add_exits(stem: nn.Module, blocks: list[nn.Module], dataset: Dataset) -> MultiExitNetwork:
    """Return a network of a stem and blocks with an exit, a pool and a new linear head, after each block."""
    features, exits = stem.eval()(torch.zeros(2, *dataset.image_shape)), []
    for block in blocks:
        features = block.eval()(features)
        pool = GlobalAveragePool() if features.ndim == 4 else nn.Identity()
        exits.append((pool, nn.Linear(features.shape[1], dataset.classes)))
    return MultiExitNetwork(stem, blocks, exits)
