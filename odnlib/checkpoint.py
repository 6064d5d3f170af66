"""A file that survives being killed: checksummed, written whole or not at all, the last two kept."""

from __future__ import annotations

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
    """Make `state` the newest checkpoint; what was the newest is kept beside it.

    The file is 32 bytes of SHA-256, then what they are the checksum of.
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
