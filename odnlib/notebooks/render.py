"""Run one notebook through papermill: python -m odnlib.notebooks.render SOURCE EXECUTED PARAMETERS (JSON).

Unlike papermill's own command it connects to the kernel through sockets in a folder. TCP ports are chosen before the
kernel binds them, and of many notebooks that start together two may choose the same.
"""

import json
import os
import sys
import tempfile

import papermill
from traitlets.config import Config

from odnlib import ROOT


def render(source: str, executed: str, parameters: dict) -> None:
    """Run `source` with `parameters` and write it to `executed`, also where a cell raises.

    Raises:
        papermill.PapermillExecutionError: where a cell raises.
    """
    with tempfile.TemporaryDirectory(prefix="odn-") as sockets:  # a short path: their names hold at most 107 bytes
        os.environ["JUPYTER_RUNTIME_DIR"] = sockets
        kernel = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})  # ip: start of their names
        papermill.execute_notebook(source, executed, parameters, cwd=ROOT, progress_bar=False, config=kernel)


if __name__ == "__main__":
    render(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
