"""What the server of `children` does before it forks: train once, because much is imported on first use only."""

import contextlib
import io
import tempfile

import torch

from odnlib.__main__ import main

torch.set_num_threads(1)
SETTINGS = ("width=8", "train_images=64", "last_depth=2", "depth_epochs=1", "finetune_epochs=1", "full_epochs=1")
with tempfile.TemporaryDirectory() as folder:
    arguments = ["run", "--row=mnist", f"--results-dir={folder}", *(f"--set={setting}" for setting in SETTINGS)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(arguments)
