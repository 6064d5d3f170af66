"""What is taken away computes what was trained."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from odnlib import experiment, metrics
from odnlib.files import RunConflict, read_json
from studies import export
from tests.conftest import tiny, tiny_recipe

DATA = tiny()


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """The folder of a finished search on tiny data."""
    return experiment.run(tiny_recipe(), lambda: DATA, tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("chosen", [True, False])
def test_files_compute_what_was_trained(search, tmp_path, chosen):
    """The depth that the search chose, and one that it only tried."""
    result = read_json(search / "result.json")
    depth = result["depth"] if chosen else 1
    about = export.write(search, DATA, tmp_path, depth)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "model.json", "model.onnx", "model.safetensors"}
    assert about["onnx_largest_difference"] < export.CLOSE
    tried = pd.read_csv(search / "depths.csv").set_index("depth").loc[depth]
    assert (about["depth"], about["params"]) == (depth, tried["params"])
    assert about["val_acc_pct"] == pytest.approx(tried["val_acc_pct"])
    network = export.network_of(search, DATA.test.dataset, depth)
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    tested = pytest.approx(about["test_acc_pct"])
    assert metrics.evaluate(network, DATA.test)[1][0] == tested
    assert export.accuracy_pct(tmp_path / "model.onnx", DATA.test) == tested
    assert not chosen or result["test_acc_pct"] == tested
    card = (tmp_path / "README.md").read_text()
    digest = read_json(search / "provenance.json")["data_sha256"]["train"]
    for words in (f"{about['test_acc_pct']:.2f} % on 30 test images", "uint8 (N, 8, 8, 1)", digest):
        assert words in card


def test_onnxruntime_alone_classifies_an_image(search, tmp_path):
    network = export.network_of(search, DATA.test.dataset)
    export.to_onnx(network, DATA.test.dataset, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    logits = session.run(None, {"images": DATA.test.images[:1].permute(0, 2, 3, 1).numpy()})[0]
    with torch.inference_mode():
        expected = network(DATA.test.normalise(DATA.test.images[:1]))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == []
    with torch.no_grad():
        network.head.bias += torch.tensor([0.01, 0.0, 0.0])
    with pytest.raises(export.ExportError, match=r"logits differ by up to 0.01"):
        export.check(tmp_path / "model.onnx", network, DATA.validation)


def test_what_is_not_there_is_refused(search, tmp_path):
    with pytest.raises(RunConflict, match=r"depth 99 was not tried: choose one of 1"):
        export.write(search, DATA, tmp_path, depth=99)
    for name in ("recipe.json", "result.json", "depths.csv"):
        (tmp_path / name).write_bytes((search / name).read_bytes())
    with pytest.raises(RunConflict, match="is not there: take its folder away, and the run is made again"):
        export.network_of(tmp_path, DATA.train.dataset)
