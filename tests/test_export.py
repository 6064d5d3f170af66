"""What is taken away computes what was trained; compression and reuse are counted rightly."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from odnlib import experiment, export, metrics, results, tables
from odnlib.studies import compress, families, reuse
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search and a finished whole network on tiny data, with their folder."""
    from odnlib.data import Data
    from tests.conftest import tiny_split

    data = Data(tiny_split(70, 1), tiny_split(30, 2), tiny_split(30, 3))
    place = tmp_path_factory.mktemp("results")
    runs = [experiment.run(tiny_recipe(variant), data, place) for variant in ("odn", "full")]
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
    result = results.read_json(search / "result.json")
    assert export.accuracy_pct(export.session(tmp_path / "model.onnx"), data.test) == pytest.approx(
        result["test_acc_pct"]
    )
    assert metrics.evaluate(export.load(tmp_path), data.test)[1][0] == pytest.approx(result["test_acc_pct"])
    card = (tmp_path / "README.md").read_text()
    for said in (f"{result['test_acc_pct']:.2f} % on 30 test images", "uint8 (N, 8, 8, 1)", results.read_json(
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
    with pytest.raises(results.RunConflict, match=r"depth 99 was not tried: choose one of 1"):
        export.write(search, data, tmp_path, depth=99)


def test_a_run_without_weights_says_what_to_do(finished, tmp_path):
    data, _, (search, _) = finished
    for name in ("recipe.json", "result.json"):
        (tmp_path / name).write_bytes((search / name).read_bytes())
    with pytest.raises(results.RunConflict, match="is not there: take its folder away, and the run is made again"):
        export.network_of(tmp_path, data.train.dataset)


def test_pruning_leaves_the_share_it_should(finished):
    data, _, (search, _) = finished
    network = export.network_of(search, data.train.dataset)
    thinned = compress.pruned(network, 90, data, epochs=1, rate=0.01, seed=0)
    weights = torch.cat([module.weight.flatten() for module, _ in compress.prunable(thinned)])
    assert float((weights == 0).float().mean()) == pytest.approx(0.9, abs=1e-3)
    before = torch.cat([module.weight.flatten() for module, _ in compress.prunable(network)])
    assert before.count_nonzero() == len(before), "the network itself stays as it was"
    assert not torch.equal(weights[weights != 0], before[weights != 0]), "what is left is trained on"


def test_compression_chooses_on_validation_and_tests_the_chosen_alone(finished, monkeypatch):
    data, _, (search, whole) = finished
    monkeypatch.setattr(compress, "SPARSITIES_PCT", (50,))
    lines = compress.study(search, whole, data, epochs=1)
    assert len(lines) == 8
    assert lines.loc[~lines["chosen"], ["test_acc_pct", "latency_1_ms"]].isna().all(axis=None)
    chosen = lines[lines["chosen"]]
    assert (chosen["val_acc_pct"] >= chosen["least_pct"]).all()
    assert chosen[["test_acc_pct", "latency_1_ms", "latency_128_ms"]].notna().all(axis=None)
    eight = lines[(lines["network"] == "whole") & (lines["sparsity_pct"] == 0)].set_index("method")
    assert eight.loc["int8", "bytes"] < eight.loc["as trained", "bytes"]
    half = lines[(lines["network"] == "whole") & (lines["method"] == "pruned")].iloc[0]
    assert half["zipped_bytes"] < eight.loc["as trained", "zipped_bytes"] < half["bytes"] * 1.1
    answers = compress.answers(results.read_recipe(search), lines)
    assert list(answers["question"]) == ["further"] * 3 + ["reach"] * 4
    assert answers["n"].max() == 1
    pd.testing.assert_frame_equal(compress.study(search, whole, data), lines), "not measured again"


def chosen_lines(sizes: dict[str, list[float]]) -> pd.DataFrame:
    lines = []
    for seed in range(3):
        for (network, method), values in sizes.items():
            line = {"network": network, "method": method, "seed": seed, "chosen": True}
            line |= dict.fromkeys(("bytes", "zipped_bytes"), values[seed])
            lines.append(line | {"test_acc_pct": 90.0 + seed, "latency_1_ms": 1.0, "processor": "a machine"})
    return pd.DataFrame(lines)


SMALLER, EQUAL, LARGER, NONE = [25, 26, 27], [60, 100, 170], [150, 160, 140], [None, None, None]


@pytest.mark.parametrize(
    ("deep_int8", "whole_pruned", "whole_int8", "verdicts"),
    [
        (SMALLER, LARGER, NONE, ("holds", "holds")),
        (EQUAL, EQUAL, LARGER, ("open", "open")),
        (LARGER, SMALLER, LARGER, ("does not hold", "does not hold")),
        ([25, None, 27], [25, None, 27], LARGER, ("open", "open")),
        (NONE, NONE, NONE, ("open", "holds")),
    ],
)
def test_verdicts_on_compression(deep_int8, whole_pruned, whole_int8, verdicts):
    """Small files count only where every seed has one; that no file is accurate enough speaks for the paper."""
    sizes = {("optimally deep", "as trained"): [100, 100, 100], ("optimally deep", "int8"): deep_int8}
    sizes |= {
        ("whole", "as trained"): [900, 900, 900],
        ("whole", "pruned"): whole_pruned,
        ("whole", "int8"): whole_int8,
    }
    lines = chosen_lines(sizes)
    answers = compress.answers(tiny_recipe(), lines[lines["zipped_bytes"].notna()])
    assert tuple(compress.verdict(question, answers) for question in ("further", "reach")) == verdicts
    if deep_int8 == SMALLER:
        line = answers.set_index(["network", "method"]).loc[("optimally deep", "int8")]
        assert line["share"] == pytest.approx(0.26, abs=0.001)
        assert line["test_points"] == 0
    assert all(compress.sentence(answer) for _, answer in answers.iterrows())


def test_a_network_that_is_small_only_when_zipped_leaves_the_claim_open():
    sizes = {("optimally deep", "as trained"): [100, 100, 100], ("whole", "pruned"): SMALLER}
    lines = chosen_lines(sizes)
    assert compress.verdict("reach", compress.answers(tiny_recipe(), lines)) == "does not hold"
    lines.loc[lines["network"] == "whole", "bytes"] = 900
    assert compress.verdict("reach", compress.answers(tiny_recipe(), lines)) == "open"


def test_front_and_recommendation(finished):
    data, _, (search, _) = finished
    recipe = replace(results.read_recipe(search), target_pct=40.0)
    offered = tables.front(recipe, search, data.test.dataset)
    timed = offered["latency_ms"].notna()
    assert list(offered.loc[timed, "depth"]) == [1, 2, 3]
    assert (offered.loc[timed, "latency_ms"] > 0).all()
    result = results.read_json(search / "result.json")
    said = tables.recommendation(recipe, offered, result | {"met_goal": True}, 30)
    assert f"depth {result['depth']} of 3" in said
    assert "your 40 %" in said
    assert "to about 0.0 points" not in tables.recommendation(recipe, offered.assign(val_acc_pct=100.0), result, 6)
    assert "No depth reached your 40 %" in tables.recommendation(recipe, offered, result | {"met_goal": False}, 30)


def test_plain_training_at_the_cost_of_the_search(finished):
    _, _, (search, _) = finished
    recipe = results.read_recipe(search)
    plain = reuse.at_same_cost(recipe, search)
    result = results.read_json(search / "result.json")
    assert (plain.variant, plain.last_depth, plain.warmup_epochs) == ("full", result["depth"], recipe.warmup_epochs)
    epochs = pd.read_csv(search / "epochs.csv")
    per_epoch = epochs["train_tmacs"].diff().iloc[-1]
    assert plain.patience >= plain.full_epochs, "convergence does not end it before it has cost as much"
    assert plain.full_epochs * per_epoch == pytest.approx(result["train_tmacs"], abs=per_epoch / 2)


def test_a_study_of_reuse_done_again_with_other_targets_replaces_the_one_before(tmp_path):
    """Two studies at one place would have two answers to one question."""

    def train(recipe):
        at = results.run_folder(recipe, tmp_path)
        at.mkdir(parents=True, exist_ok=True)
        told = {"depth": 2, "epochs": 4, "train_tmacs": 1.0, "val_acc_pct": 90.0, "test_acc_pct": 90.0}
        results.write_json(at / "recipe.json", asdict(recipe))
        results.write_json(at / "result.json", told)
        results.write_json(at / "provenance.json", {"processor": "a machine"})
        results.write_csv(at / "epochs.csv", [{"depth": 2, "train_tmacs": 0.5}, {"depth": 2, "train_tmacs": 1.0}])
        return at

    for targets, seeds in (({"mnist": 90.0}, [0, 1, 2]), ({"mnist": 95.0, "emnist": 60.0}, [0]), (
        {"mnist": 95.0, "emnist": 60.0}, [1, 2])):  # fmt: skip
        searches = reuse.searches("smoke", "fast", reuse.PAIRS, seeds, {}, targets)
        reuse.study(searches, reuse.PAIRS, tmp_path, train)
        assert len(reuse.table(tmp_path, "smoke")) == 2 * 3 * (1 if seeds == [0] else 3)
    assert len(reuse.answers(reuse.table(tmp_path, "smoke"))) == 4
    plain = reuse.plain_runs(tmp_path / "smoke" / "runs", searches.values())
    assert plain
    assert all("-full-" in at.name and (at / "result.json").exists() for at in plain)


def reuse_lines(reused: list[float], plain: list[float]) -> pd.DataFrame:
    lines = []
    for seed, values in enumerate(zip([90.0, 91.0, 92.0], reused, plain, strict=True)):
        for arm, value in zip(("search", "reused", "plain"), values, strict=True):
            line = {
                "row": "mnist",
                "sibling": "emnist",
                "seed": seed,
                "protocol": "fast",
                "settings": "w16",
                "arm": arm,
            }
            line |= {"test_acc_pct": value, "train_tmacs": 2.0 if arm == "search" else 1.0}
            lines.append(line | {"not_comparable": "", "processor": "a machine"})
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("reused", "plain", "verdicts"),
    [
        ([90.0, 91.1, 92.0], [88.0, 89.2, 90.1], ["holds", "holds"]),
        ([80.0, 81.5, 82.0], [95.0, 96.2, 97.1], ["does not hold", "does not hold"]),
        ([80.0, 91.5, 99.0], [80.0, 96.2, 92.1], ["open", "open"]),
    ],
)
def test_answers_of_reuse(reused, plain, verdicts):
    answers = reuse.answers(reuse_lines(reused, plain))
    assert list(answers["verdict"]) == verdicts
    assert list(answers["cost_ratio"]) == [0.5, 2.0]
    assert list(answers["n"]) == [3, 3]


def test_a_gain_on_one_dataset_does_not_make_up_for_a_loss_on_another():
    gain = reuse_lines([95.0, 96.1, 97.0], [88.0, 89.2, 90.1])
    loss = reuse_lines([85.0, 86.1, 87.0], [88.0, 89.2, 90.1]).assign(row="emnist", sibling="mnist")
    answers = reuse.answers(pd.concat([gain, loss]))
    assert reuse.verdict(answers[answers["question"] == "reused"]) == "does not hold"
    assert reuse.verdict(answers[answers["question"] == "expansion"]) == "holds"


def family_lines(depths: dict[str, list[int]], goal: bool = True) -> pd.DataFrame:
    lines = [
        {"architecture": name, "seed": seed, "depth": depth, "of": 8, "met_goal": goal, "size_share": depth / 8}
        for name, found in depths.items() for seed, depth in enumerate(found)
    ]  # fmt: skip
    return pd.DataFrame(lines).assign(goal_pct=90.0, row="mnist", processor="a machine")


def test_verdict_on_families():
    assert families.verdict(family_lines({"wrn_40_2": [2, 3], "mobilenet_v1": [7, 5]}))[0] == "holds"
    assert families.verdict(family_lines({"wrn_40_2": [2, 8], "mobilenet_v1": [7, 5]}))[0] == "open"
    assert families.verdict(family_lines({"wrn_40_2": [8, 8], "mobilenet_v1": [7, 5]}))[0] == "does not hold"
    assert families.verdict(family_lines({"wrn_40_2": [2, 3]}, goal=False))[0] == "does not hold"


def test_calibration_images_are_training_images(finished):
    data, _, _ = finished
    reader = compress.Calibration(data.train)
    images = [image["images"] for image in iter(reader.get_next, None)]
    assert {image.shape for image in images} == {(1, 8, 8, 1)}
    known = {image.permute(1, 2, 0).numpy().tobytes() for image in data.train.images}
    assert {image[0].tobytes() for image in images} == known
