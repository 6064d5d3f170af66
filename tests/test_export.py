"""What is taken away computes what was trained."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from odnlib import experiment, metrics
from odnlib.data import Data
from odnlib.files import RunConflict, read_json
from studies import export, own
from tests.conftest import tiny_recipe, tiny_split


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search and a finished whole network on tiny data, with their folder."""
    data = Data(tiny_split(70, 1), tiny_split(30, 2), tiny_split(30, 3))
    place = tmp_path_factory.mktemp("results")
    runs = [experiment.run(tiny_recipe(variant), lambda: data, place) for variant in ("odn", "full")]
    return data, place, runs


def test_onnx_and_safetensors_compute_what_was_trained(finished, tmp_path):
    data, _, (search, _) = finished
    about = export.write(search, data, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "model.json",
        "model.onnx",
        "model.safetensors",
    ]
    assert about["onnx_largest_difference"] < export.CLOSE
    result = read_json(search / "result.json")
    assert export.accuracy_pct(export.session(tmp_path / "model.onnx"), data.test) == pytest.approx(
        result["test_acc_pct"]
    )
    assert metrics.evaluate(export.load(tmp_path), data.test)[1][0] == pytest.approx(result["test_acc_pct"])
    card = (tmp_path / "README.md").read_text()
    for said in (f"{result['test_acc_pct']:.2f} % on 30 test images", "uint8 (N, 8, 8, 1)", read_json(
        search / "provenance.json")["data_sha256"]["train"]):  # fmt: skip
        assert said in card


def test_another_depth_is_exported_with_its_own_accuracy(finished, tmp_path):
    data, _, (search, _) = finished
    about = export.write(search, data, tmp_path, depth=1)
    tried = pd.read_csv(search / "depths.csv").set_index("depth")
    assert about["depth"] == 1
    assert about["params"] == tried.loc[1, "params"]
    assert about["val_acc_pct"] == pytest.approx(tried.loc[1, "val_acc_pct"])
    assert metrics.evaluate(export.load(tmp_path), data.test)[1][0] == pytest.approx(about["test_acc_pct"])


def test_onnxruntime_alone_classifies_an_image(finished, tmp_path):
    data, _, (search, _) = finished
    export.write(search, data, tmp_path)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    image = data.test.images[0].permute(1, 2, 0).numpy()
    logits = session.run(None, {"images": image[None]})[0]
    with torch.inference_mode():
        expected = export.load(tmp_path)(data.test.normalise(data.test.images[:1]))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == []


def test_a_file_that_computes_something_else_is_refused(finished, tmp_path):
    data, _, (search, _) = finished
    export.write(search, data, tmp_path)
    network = export.load(tmp_path)
    with torch.no_grad():
        network.head.bias += torch.tensor([0.01, 0.0, 0.0])
    with pytest.raises(export.ExportError, match=r"logits differ by up to 0.01"):
        export.check(tmp_path / "model.onnx", network, data.validation)


def test_a_depth_that_was_not_tried_is_refused(finished, tmp_path):
    data, _, (search, _) = finished
    with pytest.raises(RunConflict, match=r"depth 99 was not tried: choose one of 1"):
        export.write(search, data, tmp_path, depth=99)


def test_a_run_without_weights_says_what_to_do(finished, tmp_path):
    data, _, (search, _) = finished
    for name in ("recipe.json", "result.json"):
        (tmp_path / name).write_bytes((search / name).read_bytes())
    with pytest.raises(RunConflict, match="is not there: take its folder away, and the run is made again"):
        export.network_of(tmp_path, data.train.dataset)


def test_front_and_recommendation(finished):
    data, _, (search, _) = finished
    recipe = tiny_recipe(target_pct=40.0)
    offered = own.front(recipe, search, data.test.dataset)
    timed = offered["latency_ms"].notna()
    assert list(offered.loc[timed, "depth"]) == [1, 2, 3]
    assert (offered.loc[timed, "latency_ms"] > 0).all()
    result = read_json(search / "result.json")
    said = own.recommendation(recipe, offered, result | {"met_goal": True}, 30)
    assert f"depth {result['depth']} of 3" in said
    assert "your 40 %" in said
    assert "to about 0.0 points" not in own.recommendation(recipe, offered.assign(val_acc_pct=100.0), result, 6)
    assert "No depth reached your 40 %" in own.recommendation(recipe, offered, result | {"met_goal": False}, 30)
