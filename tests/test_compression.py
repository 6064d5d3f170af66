"""Compression is counted rightly, on tiny networks and on chosen figures."""

import pandas as pd
import pytest
import torch

from odnlib import experiment, models
from odnlib.files import write_csv, write_json
from studies import common, compression
from tests.conftest import tiny_recipe
from tests.pretend import pretend_run

DEEP, WHOLE = "optimally deep", "whole"


def test_pruning_leaves_the_share_it_should(tiny_data):
    network = models.build("resnet18", 1, 3, 8).truncate(3)
    prunable = [x for x in network.state_dict().values() if x.dim() > 1]  # convolutions and the head, no BatchNorm
    before = torch.cat([x.flatten() for x in prunable])
    compression.prune_and_retrain(network, 90, tiny_data, seed=0)
    weights = torch.cat([x.flatten() for x in network.state_dict().values() if x.dim() > 1])
    assert float((weights == 0).float().mean()) == pytest.approx(0.9, abs=1e-3)
    assert not torch.equal(weights[weights != 0], before[weights != 0]), "what is left is trained on"


@pytest.mark.slow
def test_compression_chooses_on_validation_and_tests_the_chosen_alone(tiny_data, tmp_path):
    search, whole = (experiment.run(tiny_recipe(variant), lambda: tiny_data, tmp_path) for variant in ("odn", "full"))
    assert compression.read_results(tmp_path, "smoke").empty
    compression.measure_compression(search, whole, lambda: tiny_data, [50])
    compression.measure_compression(search, whole, lambda: pytest.fail("measured again"), [50])
    lines = compression.read_results(tmp_path, "smoke")
    assert len(lines) == 8
    measured = ["test_acc_pct", "latency_1_ms", "latency_128_ms"]
    assert lines.loc[~lines["chosen"], measured].isna().all(axis=None)
    assert lines.loc[lines["chosen"], measured].notna().all(axis=None)
    assert (lines["val_acc_pct"] >= lines["least_pct"])[lines["chosen"]].all()
    sizes = lines[lines["network"] == WHOLE].set_index("method")
    assert sizes.loc["int8", "bytes"] < sizes.loc["as trained", "bytes"]
    assert sizes.loc["pruned", "zipped_bytes"] < sizes.loc["as trained", "zipped_bytes"]
    answers = compression.summarise_over_seeds(lines)
    assert list(answers["question"]) == ["further"] * 3 + ["reach"] * 4
    assert answers["n"].max() == 1
    common.write_study("compression", compression, tmp_path, "smoke")
    assert {path.name for path in (tmp_path / "smoke").glob("*.csv")} == {"compression.csv", "compression_answers.csv"}
    assert len(list((tmp_path / "smoke" / "figures").glob("compression-mnist-released-*.png"))) == 1


SMALLER, EQUAL, LARGER, NONE = [25, 26, 27], [60, 100, 170], [150, 160, 140], [None, None, None]


def chosen_lines(results_dir, sizes: dict[tuple[str, str], list]) -> pd.DataFrame:
    """`compression.read_results` of three searches on real images, of which these files were chosen."""
    sizes = pd.DataFrame({(DEEP, "as trained"): [100] * 3, (WHOLE, "as trained"): [900] * 3} | sizes)
    for seed, of_seed in sizes.rename_axis(columns=["network", "method"]).iterrows():
        lines = of_seed.dropna().rename("bytes").reset_index().assign(seed=seed, chosen=True, processor="a machine")
        lines = lines.assign(zipped_bytes=lines["bytes"], test_acc_pct=90.0 + seed, latency_1_ms=1.0)
        write_csv(pretend_run(results_dir, seed=seed) / "compression.csv", lines)
    return compression.read_results(results_dir, "paper")


CASES = [
    (SMALLER, LARGER, NONE, ("holds", "holds")),
    (EQUAL, EQUAL, LARGER, ("open", "open")),
    (LARGER, SMALLER, LARGER, ("does not hold", "does not hold")),
    ([25, None, 27], [25, None, 27], LARGER, ("open", "open")),
    (NONE, NONE, NONE, ("open", "holds")),
]


@pytest.mark.parametrize(("deep_int8", "whole_pruned", "whole_int8", "verdicts"), CASES)
def test_verdicts_on_compression(deep_int8, whole_pruned, whole_int8, verdicts, tmp_path):
    """Small files count only where every seed has one; that no file is accurate enough speaks for the paper."""
    sizes = {(DEEP, "int8"): deep_int8, (WHOLE, "pruned"): whole_pruned, (WHOLE, "int8"): whole_int8}
    answers = compression.summarise_over_seeds(chosen_lines(tmp_path, sizes))
    further, reach = (compression.judge_claim(answers, question) for question in ("further", "reach"))
    assert (further[0], reach[0]) == verdicts
    assert "mnist by released, a machine" in further[1]
    assert "whole network, pruned + int8: no file is accurate enough" in reach[1]
    if deep_int8 == SMALLER:
        line = answers.set_index(["network", "method"]).loc[(DEEP, "int8")]
        assert (line["share"], line["test_points"]) == (pytest.approx(0.26, abs=0.001), 0)


def test_the_size_on_disk_decides(tmp_path):
    """Of a network that is small only when zipped, too: it is what Table I has."""
    lines = chosen_lines(tmp_path, {(WHOLE, "pruned"): SMALLER})
    lines.loc[lines["network"] == WHOLE, "bytes"] = 900
    assert compression.judge_claim(compression.summarise_over_seeds(lines), "reach")[0] == "does not hold"


def test_calibration_images_are_training_images(tiny_data):
    images = [image["images"] for image in compression.yield_calibration_images(tiny_data.train)]
    assert {image.shape for image in images} == {(1, 8, 8, 1)}
    assert {image.tobytes() for image in images} == {image.numpy().tobytes() for image in tiny_data.train.images}


@pytest.mark.parametrize(("validation_pct", "verdict"), [(99.0, "holds"), (98.8, "does not hold")])
def test_published_networks_in_8_bits_are_judged(tmp_path, validation_pct, verdict):
    assert compression.judge_published(tmp_path) == ("not measured", "")
    folder = tmp_path / "quick" / "networks" / "mnist"
    folder.mkdir(parents=True)
    about = {"row": "mnist", "depth": 2, "test_acc_pct": 99.47, "val_acc_pct": 99.37}
    write_json(folder / "model.json", about)
    assert compression.judge_published(tmp_path)[0] == "not measured"
    eight = {"size_mb": 0.171, "plain_mb": 0.602, "test_acc_pct": 99.42, "val_acc_pct": validation_pct}
    write_json(folder / "model.json", about | {"int8": eight})
    judged, why = compression.judge_published(tmp_path)
    assert judged == verdict
    assert "mnist at depth 2 0.17 instead of 0.60 MB, -0.05 points" in why
