"""Keep a training so that it can be killed at any moment, and go on with it as if nothing had happened.

A checkpoint is 32 bytes of SHA-256 and what they are the checksum of. The last two are kept.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

import torch

from odnlib.results import replace
from odnlib.trainer import Training, train

NEWEST, BEFORE = "checkpoint.pt", "checkpoint-before.pt"
SAVE_EVERY = 60.0  # seconds, within a long epoch
SAVES_APART = 2.0  # seconds, between short epochs: writing is then a part of the work that one would notice
LOG_EVERY = 60.0  # seconds
SECOND_SIGNAL_AFTER = 3.0  # seconds; those that come together are one
TELL_EVERY = 1.0  # seconds between two words to a progress bar
log = logging.getLogger("odnlib")
log.setLevel(logging.DEBUG)  # what a handler shows is its own business


class Stopped(RuntimeError):
    """Asked to stop; all is kept, and the same command goes on from here.

    Attributes:
        why: the name of a signal, or that the time is used up.
    """

    def __init__(self, message: str, why: str = ""):
        super().__init__(message)
        self.why = why


def write(folder: Path, state: dict) -> None:
    """Make `state` the newest checkpoint; what was the newest is kept beside it."""
    content = io.BytesIO()
    torch.save(state, content)

    def put(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(hashlib.sha256(content.getbuffer()).digest())
            file.write(content.getbuffer())
        if (folder / NEWEST).exists():
            (folder / NEWEST).replace(folder / BEFORE)

    replace(folder / NEWEST, put)


def read(folder: Path, device: str | torch.device = "cpu") -> dict | None:
    """The newest checkpoint that is whole, or None; a damaged one is passed over with a warning.

    Tensors and plain values only: a file that would run code when unpickled counts as damaged.
    """
    for path in (folder / NEWEST, folder / BEFORE):
        if not path.exists():
            continue
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            try:
                return torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
            except pickle.UnpicklingError:
                pass
        path.replace(path.with_suffix(".damaged"))  # so that it never takes the place of a good one
        log.warning("%s is damaged: going on from what was kept before it", path)
    return None


class Keeper:
    """Goes through a training and saves it: after an epoch, every minute within one, and when asked to stop.

    Within `with`, SIGTERM and SIGINT end the training after the step under way; one more, seconds later, at once.

    Args:
        budget_s: seconds after which to stop.
        within_epoch: told, about once a second, which part (0 to 1) of the present epoch's images has been seen.
    """

    def __init__(
        self, training: Training, budget_s: float | None = None, within_epoch: Iterable[Callable[[float], None]] = ()
    ):
        self.training, self.within_epoch = training, list(within_epoch)
        self.deadline = math.inf if budget_s is None else time.monotonic() + budget_s
        self.asked, self.asked_at = "", 0.0  # why to stop, and since when
        self.seconds = [0.0]  # that each epoch took, those of the present one last
        self.handlers: dict[int, object] = {}
        self.saved = self.told = self.logged = self.counted = time.monotonic()

    def __enter__(self) -> Keeper:
        if threading.current_thread() is threading.main_thread():
            # Slurm's warning, where somebody listens to it (`cluster`): by itself it would kill.
            warned = signal.getsignal(signal.SIGUSR2) not in (signal.SIG_DFL, None)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)[: 2 + warned]:
                self.handlers[number] = signal.signal(number, self.ask_to_stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def ask_to_stop(self, number: int, _: FrameType | None) -> None:
        warned = number == signal.SIGUSR2  # Slurm's word that we shall be queued again counts, whatever came before
        if self.asked and not warned and time.monotonic() - self.asked_at > SECOND_SIGNAL_AFTER:
            raise KeyboardInterrupt
        if warned or not self.asked:
            self.asked, self.asked_at = signal.Signals(number).name, time.monotonic()

    def epochs(self) -> Iterator[dict]:
        """One record per epoch: those of earlier times at once, then each as it comes.

        Raises:
            Stopped: asked to, or out of time; all is kept.
        """
        training = self.training
        state = read(training.folder, training.data.train.images.device)
        if state is not None:
            self.seconds = state.pop("seconds")
            training.load_state_dict(state)
            log.info("goes on: %s", self.where())
            yield from training.records
        training.between_steps = self.between_steps
        self.counted = time.monotonic()
        for record in train(training):
            self.save(new_epoch=True)
            yield record
            self.counted = time.monotonic()  # what listeners do is not training

    def where(self) -> str:
        """Where the training stands, in words."""
        training, stage = self.training, self.training.stage
        name = stage.kind if stage.kind in ("warmup", "full") else f"{stage.kind} {stage.depth}"
        epoch = f"epoch {training.stage_epoch + (training.seen > 0)}"
        most = f" of at most {stage.epochs}" if stage.epochs is not None else ""
        part = f", {training.seen / len(training.data.train):.0%} of its images" if training.seen else ""
        best = f", best validation {training.best_pct:g} %" if training.best_pct > 0 else ""
        return f"{name}, {epoch}{most}{part}{best}"

    def save(self, new_epoch: bool = False) -> None:
        """Write a checkpoint, unless the training has diverged: the last good one stays.

        Where epochs are shorter than `SAVES_APART`, not every one is saved: a kill costs that much at most.
        """
        now = time.monotonic()
        self.seconds[-1] += now - self.counted
        self.counted = now
        if new_epoch:
            self.seconds.append(0.0)
            if now - self.saved < SAVES_APART:
                return
        self.saved = now
        self.training.refuse_divergence()
        write(self.training.folder, self.training.state_dict() | {"seconds": self.seconds})

    def between_steps(self) -> None:
        """Tell, save, stop, where it is time for it."""
        now = time.monotonic()
        if now - self.told > TELL_EVERY:
            self.told = now
            for tell in self.within_epoch:
                tell(self.training.seen / len(self.training.data.train))
        if now - self.logged > LOG_EVERY:
            self.logged = now
            log.info("%s", self.where())
        if not self.asked and now > self.deadline:
            self.asked = "the time budget is used up"
        if self.asked:
            self.save()
            log.debug("stopped (%s) and kept at %s", self.asked, self.where())
            kept = f"stopped ({self.asked}) and kept at {self.where()}; the same command goes on from here"
            raise Stopped(kept, self.asked)
        if now - self.saved > SAVE_EVERY:
            self.save()
