"""Algorithm 1: warm up all depths, train the shallowest, deepen until the target is met, fine-tune that depth.

The algorithm is `next_stage` (which stage follows which), `Plateau` (when one has converged) and `Training.epoch` (the
one loop that trains them all). Everything else here is keeping and continuing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from odnlib import metrics
from odnlib.data import Data, generator
from odnlib.models import MultiExitNetwork, statistics_of_separate_passes
from odnlib.recipes import Recipe
from odnlib.results import replace

ALL_DEPTHS = 0  # as a stage's depth: every exit at once
KEPT = ("stage_epoch", "records", "warmup_accuracy_pct", "kept_accuracy_pct", "best_pct", "best")  # of `Training`


class TrainingDiverged(RuntimeError):
    """The loss is not finite; the message names the place, what was kept and what to try."""


@dataclass(frozen=True)
class Stage:
    """One uninterrupted piece of training."""

    kind: str  # warmup, depth, finetune, full
    depth: int  # ALL_DEPTHS in the warm-up
    rate: float  # learning rate at its start
    epochs: int | None  # at most; None: until converged
    start: str  # from which weights: "initial", "warm" (those that the warm-up left), "carried" (the previous depth's),
    # "current" (the same, and the same optimiser and plateau rule)
    decimals: int  # of the validation accuracy in %, as the plateau rule sees it
    goal_pct: float = math.inf  # validation accuracy that ends the stage


def next_stage(recipe: Recipe, ended: Stage | None, met_goal: bool) -> Stage | None:
    """The stage after `ended` (None: the first), or None after the last (Algorithm 1; Section III).

    At the largest depth there is nothing left to search, so it is fine-tuned at once (released code).
    """

    def at_depth(depth: int) -> Stage:
        first = depth == recipe.first_depth
        rate = recipe.rate * (1 if first else recipe.increment_rate_factor)
        epochs = recipe.first_epochs if first and recipe.first_epochs is not None else recipe.depth_epochs
        start = "carried" if recipe.carry_weights and not first else "warm"
        if depth == recipe.last_depth and not recipe.one_cycle:
            return Stage("finetune", depth, rate, recipe.finetune_epochs, start, recipe.finetune_decimals)
        return Stage("depth", depth, rate, epochs, start, recipe.search_decimals, recipe.goal_pct)

    if recipe.variant == "full":
        whole = Stage("full", recipe.last_depth, recipe.rate, recipe.full_epochs, "initial", recipe.finetune_decimals)
        return whole if ended is None else None
    if ended is None:
        return Stage("warmup", ALL_DEPTHS, recipe.warmup_rate, recipe.warmup_epochs, "initial", recipe.search_decimals)
    if ended.kind == "warmup":
        return at_depth(recipe.first_depth)
    if ended.kind == "depth" and not met_goal and ended.depth < recipe.last_depth:
        return at_depth(ended.depth + 1)
    if ended.kind == "depth":
        rate = recipe.rate if recipe.one_cycle else 0.0  # the plateau rule goes on with its own
        return Stage("finetune", ended.depth, rate, recipe.finetune_epochs, "current", recipe.finetune_decimals)
    return None


@dataclass
class Plateau:
    """The stopping criterion of Section III-C: the rate decays while nothing improves, then training has converged."""

    rate: float
    best_pct: float = 0.0
    epochs_without_improvement: int = 0

    def update(self, accuracy_pct: float, decay: float, decay_every: int) -> None:
        """Take in the validation accuracy after one more epoch."""
        if accuracy_pct > self.best_pct:
            self.best_pct, self.epochs_without_improvement = accuracy_pct, 0
            return
        self.epochs_without_improvement += 1
        if self.epochs_without_improvement % decay_every == 0:
            self.rate *= decay


def one_cycle(peak: float, progress: float) -> float:
    """Rate that rises over the first fifth of a stage and falls to 0 by its end (Smith and Topin, 2017).

    Args:
        progress: part of the stage that is over, 0 to 1.
    """
    return peak * min(progress / 0.2, (1 - progress) / 0.8)


def exits_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over the exits of the mean cross-entropy (Eq. 2): logits (exits, N, classes), labels (N,) -> scalar."""
    exits = len(logits)
    return exits * functional.cross_entropy(logits.flatten(0, 1), labels.repeat(exits))


def logits_at(network: MultiExitNetwork, images: Tensor, depth: int) -> Tensor:
    """Logits (exits, N, classes) of one depth, or with ALL_DEPTHS of every depth."""
    return network.forward_all(images) if depth == ALL_DEPTHS else network(images, depth)[None]


class Training:
    """A run under way: the network, where it stands in Algorithm 1, and one record per epoch so far."""

    def __init__(self, recipe: Recipe, data: Data, folder: Path):
        self.recipe, self.data, self.folder = recipe, data, folder
        dataset = data.train.dataset
        torch.manual_seed(recipe.seed)
        self.network = MultiExitNetwork(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
        self.network.to(data.train.images.device, memory_format=torch.channels_last)
        depths = range(1, self.network.max_depth + 1)
        self.macs = [metrics.macs(self.network.truncate(depth), dataset.image_shape) for depth in depths]
        self.records: list[dict] = []
        self.warmup_accuracy_pct: list[float] = []  # on validation, per depth
        self.kept_accuracy_pct: dict[int, float] = {}  # on validation, of the network kept at each depth
        self.plateau = Plateau(0.0)
        self.enter(next_stage(recipe, None, False))

    def enter(self, stage: Stage) -> None:
        """Set weights, optimiser and plateau rule up as the stage says."""
        self.stage, self.stage_epoch = stage, 0
        if stage.start == "current":
            return
        if stage.start == "warm":
            self.network.load_state_dict(load_file(self.folder / "warm.safetensors"))
        every = stage.depth == ALL_DEPTHS
        trained = list(self.network.parameters()) if every else self.network.parameters_at(stage.depth)
        recipe = self.recipe
        self.optimizer = torch.optim.SGD(
            trained, stage.rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
        )
        self.network.zero_grad()
        self.plateau = Plateau(stage.rate, self.plateau.best_pct if self.recipe.carry_best else 0.0)
        self.best_pct = -1.0  # of this depth, whatever the plateau rule carries over
        self.best: dict[str, Tensor] = {}
        self.keep_best(0.0)

    def keep_best(self, accuracy_pct: float) -> None:
        """Keep the network of this depth if, rounded as the plateau rule does, no epoch of this depth was as good."""
        rounded = round(accuracy_pct, self.stage.decimals)
        if self.stage.depth != ALL_DEPTHS and rounded > self.best_pct:
            self.best_pct, self.best = rounded, self.network.truncate(self.stage.depth).state_dict()
            self.kept_accuracy_pct[self.stage.depth] = accuracy_pct

    def rate_at(self, part: float) -> float:
        """Learning rate when `part` (0 to 1) of the present epoch is over."""
        stage = self.stage
        if stage.kind == "warmup":
            return stage.rate * (1 + math.cos(math.pi * self.stage_epoch / stage.epochs)) / 2
        if self.recipe.one_cycle:
            return one_cycle(stage.rate, (self.stage_epoch + part) / stage.epochs)
        return self.plateau.rate

    def pass_over_images(self) -> tuple[float, float, int]:
        """Train on every image once; (mean loss, accuracy in %, images seen), means over the exits."""
        recipe, stage, network = self.recipe, self.stage, self.network
        random = generator(recipe.seed, stage.kind, stage.depth, self.stage_epoch)
        statistics = statistics_of_separate_passes(network) if stage.kind == "warmup" else nullcontext()
        autocast = torch.autocast(self.data.train.images.device.type, torch.bfloat16, enabled=recipe.bfloat16)
        total_loss, correct, seen = 0.0, 0, 0
        network.train()
        with statistics:
            for images, labels in self.data.train.shuffled_batches(recipe.batch_size, recipe.drop_last, random):
                for group in self.optimizer.param_groups:
                    group["lr"] = self.rate_at(seen / len(self.data.train))
                with autocast:
                    logits = logits_at(network, images, stage.depth)
                    loss = exits_loss(logits, labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                # Sums stay on the device, so that no step waits for the one before.
                total_loss = total_loss + loss.detach() / len(logits) * len(labels)
                correct = correct + (logits.detach().argmax(-1) == labels).sum() / len(logits)
                seen += len(labels)
        return float(total_loss) / seen, 100 * float(correct) / seen, seen

    def epoch(self) -> dict:
        """One pass over the training images, a measurement on the validation images, the plateau rule; one record."""
        recipe, stage, network, rate = self.recipe, self.stage, self.network, self.rate_at(0.0)
        train_loss, train_accuracy_pct, seen = self.pass_over_images()
        if not math.isfinite(train_loss):
            raise TrainingDiverged(
                f"the loss is not finite in stage {stage.kind}, depth {stage.depth}, epoch {self.stage_epoch + 1} at "
                f"rate {rate:g}: try a smaller rate; everything up to the epoch before is kept in {self.folder}"
            )
        validation_loss, accuracies = metrics.evaluate(
            network, self.data.validation, lambda images: logits_at(network, images, stage.depth)
        )
        accuracy_pct = sum(accuracies) / len(accuracies)
        self.stage_epoch += 1
        if stage.kind == "warmup":
            self.warmup_accuracy_pct = accuracies
        else:
            self.plateau.update(round(accuracy_pct, stage.decimals), recipe.decay, recipe.decay_every)
            self.keep_best(accuracy_pct)
        # Forward, gradient of the weights, gradient of the inputs: three times the forward MACs. The warm-up costs what
        # the deepest exit costs; its other heads (under 0.01 %) are left out.
        tmacs = 3 * self.macs[stage.depth - 1] * seen / 1e12
        self.records.append(
            {
                "epoch": len(self.records) + 1,
                "stage": stage.kind,
                "depth": stage.depth,
                "stage_epoch": self.stage_epoch,
                "rate": rate,
                "train_loss": train_loss,
                "train_acc_pct": train_accuracy_pct,
                "val_loss": validation_loss,
                "val_acc_pct": accuracy_pct,
                "best_val_acc_pct": self.plateau.best_pct,
                "epochs_without_improvement": self.plateau.epochs_without_improvement,
                "train_tmacs": tmacs + (self.records[-1]["train_tmacs"] if self.records else 0.0),
            }
        )
        return self.records[-1]

    def ended(self) -> bool:
        """Whether the stage is over: goal met, converged, or at its limit of epochs."""
        if self.stage.epochs is not None and self.stage_epoch >= self.stage.epochs:
            return True
        if self.recipe.one_cycle:  # its last epochs, at the smallest rates, gain the most
            return False
        return self.met_goal() or self.plateau.epochs_without_improvement >= self.recipe.patience

    def met_goal(self) -> bool:
        return self.plateau.best_pct >= self.stage.goal_pct

    def best_network(self) -> nn.Module:
        """The best network of the present depth, cut out (Section III-D)."""
        network = self.network.truncate(self.stage.depth)
        network.load_state_dict(self.best)
        return network

    def state_dict(self) -> dict:
        """All that is needed to go on; tensors and plain values only."""
        return {key: getattr(self, key) for key in KEPT} | {
            "stage": asdict(self.stage),
            "plateau": asdict(self.plateau),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.enter(Stage(**state["stage"] | {"start": "initial"}))
        self.stage = Stage(**state["stage"])
        self.plateau = Plateau(**state["plateau"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for key in KEPT:
            setattr(self, key, state[key])


def train(training: Training) -> Iterator[dict]:
    """Algorithm 1: yield one record per epoch; what was done before an interruption is yielded first, at once."""
    checkpoint = training.folder / "checkpoint.pt"
    if checkpoint.exists():
        device = training.data.train.images.device
        training.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True))
        yield from training.records
    while True:
        while not training.ended():
            record = training.epoch()
            replace(checkpoint, lambda path: torch.save(training.state_dict(), path))
            yield record
        leave(training)
        following = next_stage(training.recipe, training.stage, training.met_goal())
        if following is None:
            return
        training.enter(following)


def leave(training: Training) -> None:
    """Write what a stage leaves behind: the warmed-up weights, or its depth's network (a by-product, Section IV)."""
    stage, folder = training.stage, training.folder
    if stage.kind == "warmup":
        name, weights = "warm", training.network.state_dict()
    else:
        name, weights = f"depth{stage.depth:02d}" if stage.kind == "depth" else "network", training.best
    weights = {key: tensor.contiguous() for key, tensor in weights.items()}
    replace(folder / f"{name}.safetensors", lambda path: save_file(weights, path))
