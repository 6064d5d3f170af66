"""Algorithm 1: warm up all depths, train the shallowest, deepen until the target is met, fine-tune that depth.

The algorithm is `schedule.next_stage` (which stage follows which), `schedule.Plateau` (when one has converged) and
`Training.epoch` (the one loop that trains them all). `checkpoint.py` keeps and continues what goes on here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from odnlib import metrics
from odnlib.data import Data, generator
from odnlib.models import MultiExitNetwork, statistics_of_separate_passes
from odnlib.recipes import Recipe
from odnlib.results import replace
from odnlib.schedule import ALL_DEPTHS, Plateau, Stage, next_stage, one_cycle

# What a checkpoint holds of a `Training` beside stage, plateau rule, network and optimiser.
KEPT = ("stage_epoch", "seen", "loss_sum", "correct_sum", "records", "warm", "warmup_accuracy_pct")
KEPT += ("kept_accuracy_pct", "best_pct", "best")


class TrainingDiverged(RuntimeError):
    """The loss is not finite; the message names the place, what was kept and what to try."""


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
        self.between_steps: Callable[[], None] = lambda: None  # called when everything could be kept and stopped
        self.records: list[dict] = []
        self.warm: dict[str, Tensor] = {}  # the warmed-up weights
        self.warmup_accuracy_pct: list[float] = []  # on validation, per depth
        self.kept_accuracy_pct: dict[int, float] = {}  # on validation, of the network kept at each depth
        self.plateau = Plateau(0.0)
        self.enter(next_stage(recipe, None, False))

    def enter(self, stage: Stage) -> None:
        """Set weights, optimiser and plateau rule up as the stage says."""
        self.stage, self.stage_epoch = stage, 0
        self.begin_pass()
        if stage.start == "current":
            return
        if stage.start == "warm":
            self.network.load_state_dict(self.warm)
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

    def begin_pass(self) -> None:
        """Stand before the first image of an epoch."""
        self.seen, self.loss_sum, self.correct_sum = 0, 0.0, 0

    def pass_over_images(self) -> None:
        """Train on every image once, or on those that an interruption left; sums of loss and hits, means over exits."""
        recipe, stage, network = self.recipe, self.stage, self.network
        random = generator(recipe.seed, stage.kind, stage.depth, self.stage_epoch)
        statistics = statistics_of_separate_passes(network) if stage.kind == "warmup" else nullcontext()
        autocast = torch.autocast(self.data.train.images.device.type, torch.bfloat16, enabled=recipe.bfloat16)
        batches = self.data.train.shuffled_batches(recipe.batch_size, recipe.drop_last, random, self.seen)
        network.train()
        with statistics:
            for images, labels in batches:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.rate_at(self.seen / len(self.data.train))
                with autocast:
                    logits = logits_at(network, images, stage.depth)
                    loss = exits_loss(logits, labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                # Sums stay on the device, so that no step waits for the one before.
                self.loss_sum = self.loss_sum + loss.detach() / len(logits) * len(labels)
                self.correct_sum = self.correct_sum + (logits.detach().argmax(-1) == labels).sum() / len(logits)
                self.seen += len(labels)
                self.between_steps()

    def refuse_divergence(self) -> None:
        """Raise TrainingDiverged rather than keep a state that is no longer one of numbers."""
        weights = all(bool(weight.isfinite().all()) for weight in self.network.parameters())
        if not (weights and math.isfinite(float(self.loss_sum))):
            raise TrainingDiverged(
                f"the loss is not finite in stage {self.stage.kind}, depth {self.stage.depth}, epoch "
                f"{self.stage_epoch + 1} at rate {self.rate_at(0.0):g}: try a smaller rate; the last good state and "
                f"every epoch before are kept in {self.folder}"
            )

    def epoch(self) -> dict:
        """One pass over the training images, a measurement on the validation images, the plateau rule; one record."""
        recipe, stage, network, rate = self.recipe, self.stage, self.network, self.rate_at(0.0)

        def logits(images: Tensor) -> Tensor:
            self.between_steps()
            return logits_at(network, images, stage.depth)

        self.pass_over_images()
        self.refuse_divergence()
        validation_loss, accuracies = metrics.evaluate(network, self.data.validation, logits)
        accuracy_pct = sum(accuracies) / len(accuracies)
        self.stage_epoch += 1
        if stage.kind == "warmup":
            self.warmup_accuracy_pct = accuracies
        else:
            self.plateau.update(round(accuracy_pct, stage.decimals), recipe.decay, recipe.decay_every)
            self.keep_best(accuracy_pct)
        # Forward, gradient of the weights, gradient of the inputs: three times the forward MACs. The warm-up costs what
        # the deepest exit costs; its other heads (under 0.01 %) are left out.
        tmacs = 3 * self.macs[stage.depth - 1] * self.seen / 1e12
        self.records.append(
            {
                "epoch": len(self.records) + 1,
                "stage": stage.kind,
                "depth": stage.depth,
                "stage_epoch": self.stage_epoch,
                "rate": rate,
                "train_loss": float(self.loss_sum) / self.seen,
                "train_acc_pct": 100 * float(self.correct_sum) / self.seen,
                "val_loss": validation_loss,
                "val_acc_pct": accuracy_pct,
                "best_val_acc_pct": self.plateau.best_pct,
                "epochs_without_improvement": self.plateau.epochs_without_improvement,
                "train_tmacs": tmacs + (self.records[-1]["train_tmacs"] if self.records else 0.0),
            }
        )
        self.begin_pass()
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
    """Algorithm 1, from where `training` stands to its end: one record per epoch."""
    while True:
        while not training.ended():
            yield training.epoch()
        leave(training)
        following = next_stage(training.recipe, training.stage, training.met_goal())
        if following is None:
            return
        training.enter(following)


def leave(training: Training) -> None:
    """Keep what a stage leaves behind: the warmed-up weights, or as a file its depth's network (a by-product, IV)."""
    stage = training.stage
    if stage.kind == "warmup":
        training.warm = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
        return
    name = f"depth{stage.depth:02d}" if stage.kind == "depth" else "network"
    weights = save({name: tensor.contiguous() for name, tensor in training.best.items()})
    replace(training.folder / f"{name}.safetensors", lambda path: path.write_bytes(weights))
