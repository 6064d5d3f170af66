"""Checkpoints that survive a killed process: written atomically, with a checksum; the last two are kept."""

import hashlib
import io
import logging
import pickle
from pathlib import Path

import torch

from odnlib.files import replace

NEWEST, BEFORE = "checkpoint.pt", "checkpoint-before.pt"
log = logging.getLogger("odnlib")


def write(folder: Path, state: dict) -> None:
    """Save `state` with torch.save as the newest checkpoint in `folder`, and keep the one before it.

    The file holds 32 bytes of SHA-256, then the bytes that it is the checksum of.
    """
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
    """Load the newest undamaged checkpoint in `folder`, or return None; a damaged one is renamed with a warning.

    Only tensors and plain values are loaded: a file that would run code when unpickled counts as damaged.
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
