"""The benchmark's own arithmetic; its timings are for a notebook, not for tests."""

import dataclasses

import pytest
import torch

from odnlib import experiment, metrics
from odnlib.results import read_json, run_folder
from odnlib.studies import benchmark
from tests.conftest import tiny_recipe


def test_a_line_says_ratio_and_machine():
    line = benchmark.line("measure", 3.0, 2.0, "images/s", 5)
    assert (line["ratio"], line["unit"], line["n"]) == (1.5, "images/s", 5)
    assert "threads" in line["machine"]


def test_training_macs_are_three_forward_passes():
    assert benchmark.training_macs("mnist", 2, 10) == pytest.approx(30 * 117.36e6, rel=1e-4)  # Table I


def test_prefixes_and_one_pass_do_the_same_work(monkeypatch):
    """Both sides of the warm-up's comparison see every image once per depth, in steps of the same batch size."""
    calls = []
    forward = benchmark.MultiExitNetwork.forward
    monkeypatch.setattr(
        benchmark.MultiExitNetwork,
        "forward",
        lambda self, x, depth: calls.append((len(x), depth)) or forward(self, x, depth),
    )
    monkeypatch.setattr(benchmark, "resolve", lambda row, profile: dataclasses.replace(tiny_recipe(), batch_size=4))
    benchmark.prefix_by_prefix("mnist", 8)()
    assert calls == [(4, depth) for depth in range(8, 0, -1)] * 2


def test_what_a_search_left_is_tested_once(tiny_data, tmp_path, monkeypatch):
    recipe = tiny_recipe()
    folder = experiment.run(recipe, tiny_data, tmp_path)
    assert folder == run_folder(recipe, tmp_path)
    cost = benchmark.cost(recipe, folder, tiny_data.test)
    result = read_json(folder / "result.json")
    assert cost["depth"] == 3
    assert cost["test_acc_pct_depth3"] == result["test_acc_pct"]
    assert 0 <= cost["test_acc_pct_depth1"] <= 100
    monkeypatch.setattr(metrics, "evaluate", lambda *_: pytest.fail("the test images were used again"))
    assert benchmark.cost(recipe, folder, tiny_data.test) == cost
    beside = benchmark.at_equal_depth(cost | {"depth": 2, "test_acc_pct_depth2": 90.0}, cost)
    assert beside["equal_depth"] == 2
    assert beside["difference"] == 90.0 - cost["test_acc_pct_depth2"]


def test_random_data_has_the_rows_shape():
    data = benchmark.random_data("cifar10", 5)
    assert (data.train.images.shape, data.train.images.dtype) == ((5, 3, 32, 32), torch.uint8)
