"""Execute one notebook through papermill: python run_one.py SOURCE EXECUTED PARAMETERS (JSON) [PIPE].

It ends when the pipe with this number does: it never outlives whoever started it, nor the kernel it. Unlike papermill's
own command it reaches the kernel through sockets in a folder: TCP ports are chosen before the kernel binds them, and of
many notebooks that start together two may choose the same.
"""

import json
import os
import sys
import tempfile
import threading
from pathlib import Path

from traitlets.config import Config

sys.modules["rfc3987_syntax"] = None  # jsonschema would import it: seconds, for addresses that no notebook holds

COMPARISON_NOTEBOOK, OWN_IMAGES_NOTEBOOK = "07_compare_with_paper", "10_your_dataset"
REFUSALS = ("RecipeError", "DataError")  # of which the message says all
TEMPLATES_FOLDER = str(Path(__file__).parent / "notebooks" / "studies" / "templates")


def execute_notebook(source: str, executed: str, parameters: dict) -> int:
    """Execute the notebook at the path `source` with parameters and write it to the path `executed`.

    Return 0 if it reached its end, 1 if not, or 2 if it refused its parameters or images: then the reason is printed,
    and what lay at `executed` stays. papermill.PapermillExecutionError if a cell failed otherwise; it is written then.
    """
    import papermill  # after the above

    unfinished = Path(executed).with_name(f".{Path(executed).name}")  # not to be taken for one that was executed
    short = "/tmp" if len(tempfile.gettempdir()) > 60 else None  # the name of a socket holds at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="odn-", dir=short) as sockets:
        os.environ |= {"JUPYTER_RUNTIME_DIR": sockets, "JUPYTER_PREFER_ENV_PATH": "1"}  # this environment's kernel,
        os.environ["IPYTHONDIR"] = sockets  # without anybody's start-up files
        kernel = {"transport": "ipc", "ip": f"{sockets}/kernel"} if sys.platform == "linux" else {}  # ip: their names
        options = {"cwd": Path(source).parent, "progress_bar": False, "config": Config({"KernelManager": kernel})}
        options["stdout_file"] = sys.stdout  # what the notebook prints, as it does
        try:
            notebook = papermill.execute_notebook(source, unfinished, parameters, **options)
        except papermill.PapermillExecutionError as error:
            if error.ename in REFUSALS:
                print(error.evalue, file=sys.stderr)
                unfinished.unlink()
                return 2
            unfinished.replace(executed)
            raise
        unfinished.replace(executed)
    if Path(source).stem == COMPARISON_NOTEBOOK:
        write_html_page(notebook, Path(executed).parents[1] / "report.html")
    elif Path(source).stem == OWN_IMAGES_NOTEBOOK:
        write_html_page(notebook, Path(executed).with_suffix(".html"))
    return int(not notebook.metadata.papermill.end_time)


def write_html_page(notebook: dict, to: Path) -> None:
    """Write an executed notebook (an nbformat node) as one HTML page without its code, which needs no network."""
    from nbconvert import HTMLExporter  # takes its time, and the other notebooks do without

    hidden = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = HTMLExporter(template_name="report", extra_template_basedirs=[TEMPLATES_FOLDER], **hidden)
    to.write_text(exporter.from_notebook_node(notebook)[0])


def exit_when_pipe_closes(pipe: int) -> None:
    """End this process when the pipe of this file descriptor closes: no process holds its other end any more."""
    os.read(pipe, 1)
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 4:
        threading.Thread(target=exit_when_pipe_closes, args=[int(sys.argv[4])], daemon=True).start()
    sys.exit(execute_notebook(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
