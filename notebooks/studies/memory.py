"""Memory in use: does a process that classifies take as much less as the network's file is smaller (Section IV)?"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime
import pandas as pd
from tqdm import tqdm

from odnlib import metrics, models
from odnlib.data import DATASETS
from odnlib.files import describe_processor, write_csv
from odnlib.paper import TABLE_1
from studies import common, export

RESULTS_FILE = "memory.csv"
ROUNDS = 5  # processes for each network, of which the median counts
TOLERANCE_PTS = 1.0  # that the reduction in use may stay below that of the file
# In a process of its own, so that nothing else is counted: megabytes that loading and running one image have added.
MEASURE = """
import sys, numpy, onnxruntime, psutil
before, options = psutil.Process().memory_info().rss, onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = numpy.zeros((1, *session.get_inputs()[0].shape[1:]), numpy.uint8)
for _ in range(3):
    session.run(None, {"images": image})
print((psutil.Process().memory_info().rss - before) / 1e6)
"""


def measure_table_1(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return a table, one row per network of Table I, untrained, as an ONNX file: row, variant, file_mb, and used_mb,
    by which the resident memory of a process with onnxruntime has grown when it has run one image three times; kept in
    the profile's folder.
    """
    file, measured = results_dir / profile / RESULTS_FILE, []
    if not file.exists():
        for row, printed in tqdm(TABLE_1.items()):
            dataset = DATASETS[row]
            whole = models.build(printed.architecture, dataset.image_shape[0], dataset.classes)
            for variant, depth in (("full", printed.full.depth), ("odn", printed.odn.depth)):
                network = whole.truncate(depth)
                with tempfile.TemporaryDirectory() as folder:
                    export.write_onnx(network, dataset, path := Path(folder) / "model.onnx")
                    command = [sys.executable, "-c", MEASURE, path]
                    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(ROUNDS)]
                used = statistics.median(float(run.stdout) for run in runs)
                sizes = {"file_mb": metrics.size_bytes(network) / 1e6, "used_mb": used}
                about = {"processor": describe_processor(), "onnxruntime": onnxruntime.__version__}
                measured.append({"row": row, "variant": variant} | sizes | about)
        write_csv(file, measured)
    return pd.read_csv(file)


def read_results(results_dir: Path, profile: str) -> pd.DataFrame:
    """Return the table of `measure_table_1` if it has been measured in a profile, else an empty one."""
    file = results_dir / profile / RESULTS_FILE
    return pd.read_csv(file) if file.exists() else pd.DataFrame()


def judge_claim(results: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): is memory in use reduced by as much as the file, in every row of Table I?"""
    table = results.drop_duplicates(["row", "variant"]).pivot(index="row", columns="variant")
    reduction = pd.DataFrame({x: 100 * (1 - table[x]["odn"] / table[x]["full"]) for x in ("file_mb", "used_mb")})
    told = [
        f"{row} {x['used_mb']:.1f} % less in use ({table['used_mb']['full'][row]:.0f} to "
        f"{table['used_mb']['odn'][row]:.1f} MB) and {x['file_mb']:.1f} on disk"
        for row, x in reduction.reindex([row for row in TABLE_1 if row in reduction.index]).iterrows()
    ]
    holds = (reduction["used_mb"] >= reduction["file_mb"] - TOLERANCE_PTS).all()
    return common.CLAIM_HOLDS if holds else common.CLAIM_FAILS, ", ".join(told)
