"""What the server of `children` does before it forks: train once, because much is imported on first use only."""

import io
import tempfile
from contextlib import redirect_stderr, redirect_stdout

from tests import children

SETTINGS = ("width=8", "train_images=64", "last_depth=2", "depth_epochs=1", "finetune_epochs=1", "full_epochs=1")
with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as output, redirect_stderr(output):
    arguments = ["run", "--row=mnist", f"--results-dir={folder}", *(f"--set={setting}" for setting in SETTINGS)]
    children.__main__.main(arguments)
