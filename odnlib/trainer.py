"""A training run in progress: the training loop, its records, and resuming after an interruption.

**Replay.** The control flow of `search.py` is never saved. After an interruption it is executed again from its start;
`Run.epoch` returns each recorded epoch without training until the records end. There the saved tensors are restored,
and training continues in the middle of the interrupted epoch. Numbers are replayed, tensors restored; so no method
touches a tensor while `replaying`.

**Crash-only.** Ctrl-C, SIGTERM and a lost machine are treated alike and cost at most the time since the last save.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from odnlib import checkpoint, metrics
from odnlib.data import Data, seeded_generator
from odnlib.files import log, write_atomically, write_csv
from odnlib.models import MultiExitNetwork, batch_norm_as_in_separate_passes
from odnlib.recipes import Recipe, stage_title

ALL_DEPTHS = 0  # in place of a depth: every exit at once
RESTORED_ATTRIBUTES = ("warm", "warmup_accuracy_pct", "best", "seen", "loss_sum", "correct_sum")  # of a `Run`
SAVE_EVERY_SECONDS = 60.0  # a checkpoint, within a long epoch
MIN_SECONDS_BETWEEN_SAVES = 2.0  # at least, after short epochs: writing would then take a noticeable part of the time
NOTIFY_EVERY_SECONDS, LOG_EVERY_SECONDS = 1.0, 60.0  # between calls of the listeners, and between lines in the log
# Called after every epoch with its record; if it has a `within_epoch`, that about once a second with (recipe, stage,
# depth, number of the epoch in its stage from 0, part of its images that have been seen, 0 to 1).
Listener = Callable[[Recipe, dict], None]


class TrainingDiverged(RuntimeError):
    """Raised if the loss or a weight is not finite; the message says where, what was kept and what to try."""


def sum_exit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over exits of the mean cross-entropy (Eq. 2) of logits (exits, N, classes) and labels (N,)."""
    exits = len(logits)
    return exits * functional.cross_entropy(logits.flatten(0, 1), labels.repeat(exits))


class Run:
    """Holds a training run in progress: network, optimiser, a record for each epoch, and the files in its folder.

    Args:
        network: with its initial weights, on the device of the images `data`. folder: of the run, which exists.
        listeners: called after every epoch, when resuming first for the recorded ones.
    """

    def __init__(
        self, recipe: Recipe, network: MultiExitNetwork, data: Data, folder: Path, listeners: Iterable[Listener] = ()
    ):
        self.recipe, self.network, self.data, self.folder = recipe, network, data, folder
        self.listeners = list(listeners)
        shape, depths = data.train.dataset.image_shape, range(1, network.max_depth + 1)
        self.macs = [metrics.count_macs(network.truncate(depth), shape) for depth in depths]
        self.records: list[dict] = []
        self.warm: dict[str, Tensor] = {}  # the warmed-up weights
        self.warmup_accuracy_pct: list[float] = []  # on validation, per depth
        self.accuracy_pct: dict[int, float] = {}  # on validation, of the network kept at each depth
        self.best_pct, self.best = -1.0, {}  # of the present depth: rounded validation accuracy, weights
        self.seen, self.loss_sum, self.correct_sum = 0, 0.0, 0  # of the present epoch
        self.at = "", ALL_DEPTHS, 0  # stage, depth and number of the present epoch
        self.saved = checkpoint.read_checkpoint(folder, data.train.images.device)
        self.seconds = [0.0] if self.saved is None else self.saved["seconds"]  # per epoch, the present one's last
        self.saved_at = self.counted_at = self.told_at = self.logged_at = time.monotonic()

    @property
    def replaying(self) -> bool:
        """Whether epochs of an interrupted run are still replayed, and its tensors not yet restored."""
        return self.saved is not None

    def begin_depth(self, depth: int, weights: dict[str, Tensor] | None = None) -> None:
        """Prepare the training of a depth (or ALL_DEPTHS): load `weights`, if given; make a new optimiser for it."""
        every = depth == ALL_DEPTHS
        trained = list(self.network.parameters()) if every else self.network.parameters_at(depth)
        recipe = self.recipe
        self.optimizer = torch.optim.SGD(
            trained, recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
        )
        if weights and not self.replaying:
            self.network.load_state_dict(weights)
        self.network.zero_grad()
        self.best_pct = -1.0
        if not every:
            self.keep_best(depth, 0.0, 0.0)

    def keep_starting_weights(self) -> None:
        """Copy the present weights, warmed-up or initial, as those that every depth starts from (line 10)."""
        if not self.replaying:
            self.warm = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def keep_best(self, depth: int, accuracy_pct: float, rounded: float) -> None:
        """Keep this depth's weights if the rounded validation accuracy (%) beats all earlier epochs' (line 23), or,
        with `keep_last`, in any case.
        """
        if rounded > self.best_pct or self.recipe.keep_last:
            self.best_pct, self.accuracy_pct[depth] = rounded, accuracy_pct
            if not self.replaying:
                self.best = self.network.truncate(depth).state_dict()

    def write_best_weights(self, name: str) -> None:
        """Write the present depth's best weights to <name>.safetensors in the run's folder."""
        if not self.replaying:
            weights = save({name: tensor.contiguous() for name, tensor in self.best.items()})
            write_atomically(self.folder / f"{name}.safetensors", lambda path: path.write_bytes(weights))

    def epoch(self, stage: str, depth: int, number: int, rate_at: Callable[[float], float]) -> dict:
        """Train for one epoch and evaluate on validation, or, while replaying, take the recorded epoch.

        Args:
            stage: warmup, depth, finetune or full. number: of the epoch in its training stage, from 0.
            rate_at: progress within the epoch, 0 to 1 -> learning rate.

        Returns:
            the epoch's record, a dict of a row of epochs.csv, to be completed by `record`.
        """
        self.at = stage, depth, number
        if self.replaying:
            if len(self.records) < len(self.saved["records"]):
                return self.saved["records"][len(self.records)]
            self.restore_checkpoint()
        elif time.monotonic() - self.saved_at >= MIN_SECONDS_BETWEEN_SAVES:
            self.save_checkpoint()  # before the first step: whatever the stages before left is older than this
        self.train_epoch(stage, depth, number, rate_at)
        self.raise_if_diverged()
        forward = partial(self.logits, depth=depth)
        validation_loss, accuracies = metrics.evaluate(self.network, self.data.validation, forward)
        if stage == "warmup":
            self.warmup_accuracy_pct = accuracies
        # Forward, gradients of weights and of inputs: 3 x the forward MACs; in the warm-up those of the deepest exit.
        tmacs = 3 * self.macs[depth - 1] * self.seen / 1e12
        measured = {
            "epoch": len(self.records) + 1,
            "stage": stage,
            "depth": depth,
            "stage_epoch": number + 1,
            "rate": rate_at(0.0),
            "train_loss": float(self.loss_sum) / self.seen,
            "train_acc_pct": 100 * float(self.correct_sum) / self.seen,
            "val_loss": validation_loss,
            "val_acc_pct": sum(accuracies) / len(accuracies),
            "best_val_acc_pct": math.nan,
            "epochs_without_improvement": 0,
            "train_tmacs": tmacs + (self.records[-1]["train_tmacs"] if self.records else 0.0),
        }
        self.seen, self.loss_sum, self.correct_sum = 0, 0.0, 0
        return measured

    def logits(self, images: Tensor, depth: int) -> Tensor:
        """Return the logits (exits, N, classes) of one depth's exit, or of all, for images; may save a checkpoint."""
        self.notify_and_save_if_due()
        return self.network.forward_all(images) if depth == ALL_DEPTHS else self.network(images, depth)[None]

    def train_epoch(self, stage: str, depth: int, number: int, rate_at: Callable[[float], float]) -> None:
        """Train on every image once, or on those an interrupted epoch has not seen (lines 16 to 20); see `epoch`.

        Sums of loss and correct predictions, means over the exits, stay on the device: no step waits for the GPU.
        """
        recipe, network, images_in_all = self.recipe, self.network, len(self.data.train)
        random = seeded_generator(recipe.seed, stage, depth, number)  # the order of the images
        autocast = torch.autocast(self.data.train.images.device.type, torch.bfloat16, enabled=recipe.bfloat16)
        batches = self.data.train.shuffled_batches(recipe.batch_size, recipe.drop_last, random, self.seen)
        network.train()
        with batch_norm_as_in_separate_passes(network) if stage == "warmup" else nullcontext():
            for images, labels in batches:
                for group in self.optimizer.param_groups:
                    group["lr"] = rate_at(self.seen / images_in_all)
                with autocast:
                    logits = self.logits(images, depth)
                    loss = sum_exit_losses(logits, labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.loss_sum = self.loss_sum + loss.detach() / len(logits) * len(labels)
                self.correct_sum = self.correct_sum + (logits.detach().argmax(-1) == labels).sum() / len(logits)
                self.seen += len(labels)

    def record(self, measured: dict, best_pct: float, epochs_without_improvement: int) -> None:
        """Complete an epoch's record by best accuracy (%) and epochs without a better one; write it, call listeners."""
        judged = {"best_val_acc_pct": best_pct, "epochs_without_improvement": epochs_without_improvement}
        assert not self.replaying or judged.items() <= measured.items(), "replay went another way than the run"
        self.records.append(measured | judged)
        if not self.replaying:
            self.count_seconds()
            taken = [{"epoch": i + 1, "seconds": round(taken, 3)} for i, taken in enumerate(self.seconds)]
            write_csv(self.folder / "epochs.csv", self.records)
            write_csv(self.folder / "timing.csv", taken)
            self.seconds.append(0.0)
        for listener in self.listeners:
            listener(self.recipe, self.records[-1])
        self.counted_at = time.monotonic()  # what listeners do is not training

    def count_seconds(self) -> None:
        """Add the seconds since the last call to those of the present epoch."""
        now = time.monotonic()
        self.seconds[-1] += now - self.counted_at
        self.counted_at = now

    def save_checkpoint(self) -> None:
        """Write a checkpoint; TrainingDiverged, and the last good one stays, if a weight or the loss is not finite."""
        self.count_seconds()
        self.raise_if_diverged()
        state = {name: getattr(self, name) for name in (*RESTORED_ATTRIBUTES, "records", "seconds")}
        state |= {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoint.write_checkpoint(self.folder, state)
        self.saved_at = time.monotonic()

    def restore_checkpoint(self) -> None:
        """Put the tensors and the optimiser of the checkpoint back, which ends replaying."""
        vars(self).update({name: self.saved[name] for name in RESTORED_ATTRIBUTES})
        self.network.load_state_dict(self.saved["network"])
        self.optimizer.load_state_dict(self.saved["optimizer"])
        self.saved = None
        self.saved_at = self.counted_at = time.monotonic()
        log.info("goes on after %d epochs and %d images", len(self.records), self.seen)

    def notify_and_save_if_due(self) -> None:
        """Call the listeners, write to the log and save a checkpoint, each where its time since the last is over."""
        now, part = time.monotonic(), self.seen / len(self.data.train)
        if now - self.told_at > NOTIFY_EVERY_SECONDS:
            self.told_at = now
            for listener in self.listeners:
                getattr(listener, "within_epoch", lambda *_: None)(self.recipe, *self.at, part)
        if now - self.logged_at > LOG_EVERY_SECONDS:
            self.logged_at = now
            log.info("%s, %.0f %% of its images", self.describe_position(), 100 * part)
        if now - self.saved_at > SAVE_EVERY_SECONDS:
            self.save_checkpoint()

    def describe_position(self) -> str:
        """Return where the training is as text, e.g. "depth 3, epoch 5, best validation 98.2 %"."""
        stage, depth, number = self.at
        best = f", best validation {self.best_pct:g} %" if self.best_pct > 0 else ""
        return f"{stage_title(stage, depth)}, epoch {number + 1}{best}"

    def raise_if_diverged(self) -> None:
        """Raise TrainingDiverged if a weight or the present epoch's loss is not finite."""
        state = all(bool(tensor.isfinite().all()) for tensor in self.network.state_dict().values())
        if not (state and math.isfinite(float(self.loss_sum))):
            kept = f"the last good state and every epoch before are kept in {self.folder}"
            raise TrainingDiverged(f"the loss is not finite in {self.describe_position()}: try a smaller rate; {kept}")
