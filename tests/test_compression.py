"""Compression is counted rightly, on tiny networks and on chosen figures."""

import pandas as pd
import pytest
import torch

from odnlib import experiment
from odnlib.data import Data
from odnlib.files import write_csv
from studies import compression, export
from tests.conftest import tiny_recipe, tiny_split
from tests.pretend import pretend_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search and a finished whole network on tiny data, with their folder."""
    data = Data(tiny_split(70, 1), tiny_split(30, 2), tiny_split(30, 3))
    place = tmp_path_factory.mktemp("results")
    return data, place, [experiment.run(tiny_recipe(variant), lambda: data, place) for variant in ("odn", "full")]


def test_pruning_leaves_the_share_it_should(finished):
    data, _, (search, _) = finished
    network = export.network_of(search, data.train.dataset)
    thinned = compression.pruned(network, 90, data, seed=0)
    weights = torch.cat([module.weight.flatten() for module, _ in compression.prunable(thinned)])
    assert float((weights == 0).float().mean()) == pytest.approx(0.9, abs=1e-3)
    before = torch.cat([module.weight.flatten() for module, _ in compression.prunable(network)])
    assert before.count_nonzero() == len(before), "the network itself stays as it was"
    assert not torch.equal(weights[weights != 0], before[weights != 0]), "what is left is trained on"


def test_compression_chooses_on_validation_and_tests_the_chosen_alone(finished, monkeypatch):
    data, place, (search, whole) = finished
    monkeypatch.setattr(compression, "SPARSITIES_PCT", (50,))
    assert compression.table(place, "smoke").empty
    compression.measure(search, whole, lambda: data)
    compression.measure(search, whole, lambda: pytest.fail("measured again"))
    lines = compression.table(place, "smoke")
    assert len(lines) == 8
    assert lines.loc[~lines["chosen"], ["test_acc_pct", "latency_1_ms"]].isna().all(axis=None)
    chosen = lines[lines["chosen"]]
    assert (chosen["val_acc_pct"] >= chosen["least_pct"]).all()
    assert chosen[["test_acc_pct", "latency_1_ms", "latency_128_ms"]].notna().all(axis=None)
    eight = lines[(lines["network"] == "whole") & (lines["sparsity_pct"] == 0)].set_index("method")
    assert eight.loc["int8", "bytes"] < eight.loc["as trained", "bytes"]
    half = lines[(lines["network"] == "whole") & (lines["method"] == "pruned")].iloc[0]
    assert half["zipped_bytes"] < eight.loc["as trained", "zipped_bytes"] < half["bytes"] * 1.1
    answers = compression.answers(lines)
    assert list(answers["question"]) == ["further"] * 3 + ["reach"] * 4
    assert answers["n"].max() == 1
    compression.write(place, "smoke")
    names = sorted(path.name for path in (place / "smoke").glob("*.csv"))
    assert names == ["compression.csv", "compression_answers.csv"]
    assert len(list((place / "smoke" / "figures").glob("compression-mnist-released-*.png"))) == 1


SMALLER, EQUAL, LARGER, NONE = [25, 26, 27], [60, 100, 170], [150, 160, 140], [None, None, None]
SIZES = {("optimally deep", "as trained"): [100, 100, 100], ("whole", "as trained"): [900, 900, 900]}


def chosen_lines(results_dir, sizes: dict[tuple[str, str], list]) -> pd.DataFrame:
    """`compression.table` of three searches on real images, of which these files were chosen."""
    for seed in range(3):
        lines = [
            {"network": network, "method": method, "seed": seed, "chosen": True, "processor": "a machine"}
            | {"bytes": values[seed], "zipped_bytes": values[seed], "test_acc_pct": 90.0 + seed, "latency_1_ms": 1.0}
            for (network, method), values in (SIZES | sizes).items()
            if values[seed]
        ]
        write_csv(pretend_run(results_dir, seed=seed) / "compression.csv", lines)
    return compression.table(results_dir)


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
def test_verdicts_on_compression(deep_int8, whole_pruned, whole_int8, verdicts, tmp_path):
    """Small files count only where every seed has one; that no file is accurate enough speaks for the paper."""
    sizes = {("optimally deep", "int8"): deep_int8, ("whole", "pruned"): whole_pruned, ("whole", "int8"): whole_int8}
    answers = compression.answers(chosen_lines(tmp_path, sizes))
    told = [compression.verdict(answers, question) for question in ("further", "reach")]
    assert tuple(verdict for verdict, _ in told) == verdicts
    assert "mnist by released, a machine" in told[0][1]
    assert "whole network, pruned + int8: no file is accurate enough" in told[1][1]
    if deep_int8 == SMALLER:
        line = answers.set_index(["network", "method"]).loc[("optimally deep", "int8")]
        assert line["share"] == pytest.approx(0.26, abs=0.001)
        assert line["test_points"] == 0


def test_a_network_that_is_small_only_when_zipped_leaves_the_claim_open(tmp_path):
    lines = chosen_lines(tmp_path, {("whole", "pruned"): SMALLER})
    assert compression.verdict(compression.answers(lines), "reach")[0] == "does not hold"
    lines.loc[lines["network"] == "whole", "bytes"] = 900
    assert compression.verdict(compression.answers(lines), "reach")[0] == "open"


def test_calibration_images_are_training_images(tiny_data):
    reader = compression.Calibration(tiny_data.train)
    images = [image["images"] for image in iter(reader.get_next, None)]
    assert {image.shape for image in images} == {(1, 8, 8, 1)}
    known = {image.permute(1, 2, 0).numpy().tobytes() for image in tiny_data.train.images}
    assert {image[0].tobytes() for image in images} == known
