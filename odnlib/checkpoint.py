"""Checkpoints that survive a killed process: written atomically, with a checksum; the last two are kept."""

import hashlib
import io
import pickle
from pathlib import Path

import torch

from odnlib.files import log, write_atomically

NEWEST_FILE, PREVIOUS_FILE = "checkpoint.pt", "checkpoint-before.pt"


def write_checkpoint(folder: Path, state: dict) -> None:
    """Save `state`, a dict of tensors and plain values, as a run folder's newest checkpoint; keep the one before it.

    The file holds 32 bytes of SHA-256, then the bytes of torch.save that it is the checksum of.
    """
    content = io.BytesIO()
    torch.save(state, content)

    def put(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(hashlib.sha256(content.getbuffer()).digest())
            file.write(content.getbuffer())
        if (folder / NEWEST_FILE).exists():
            (folder / NEWEST_FILE).replace(folder / PREVIOUS_FILE)

    write_atomically(folder / NEWEST_FILE, put)


def read_checkpoint(folder: Path, device: str | torch.device = "cpu") -> dict | None:
    """Return the dict of the newest undamaged checkpoint in a run folder, its tensors on `device`; None without one.

    A damaged one is renamed, with a warning, and the one before it is taken. Only tensors and plain values are loaded:
    a file that would run code when unpickled counts as damaged.
    """
    for path in (folder / NEWEST_FILE, folder / PREVIOUS_FILE):
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
