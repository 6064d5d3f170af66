"""The benchmark's own arithmetic; its timings are for a notebook, not for tests."""

import dataclasses

import pytest
import torch

from odnlib import models
from odnlib.files import write_csv
from odnlib.trainer import ALL_DEPTHS
from studies import benchmark
from tests.conftest import tiny_recipe
from tests.pretend import pretend_run


def test_training_macs_are_three_forward_passes():
    assert benchmark.count_training_macs("mnist", 2, 10) == pytest.approx(30 * 117.36e6, rel=1e-4)  # Table I


def test_both_warm_ups_do_the_same_work(monkeypatch):
    """Both sides of the comparison see every image once per depth, in steps of the same batch size."""
    calls, forward, all_exits = [], models.MultiExitNetwork.forward, models.MultiExitNetwork.forward_all
    note = {
        "forward": lambda self, x, depth: calls.append((len(x), depth)) or forward(self, x, depth),
        "forward_all": lambda self, x: calls.append((len(x), ALL_DEPTHS)) or all_exits(self, x),
    }
    for name, noting in note.items():
        monkeypatch.setattr(models.MultiExitNetwork, name, noting)
    small = dataclasses.replace(tiny_recipe(), batch_size=4)
    monkeypatch.setattr(benchmark, "resolve", lambda row, profile: small)
    benchmark.make_released_warmup_epoch("mnist", 8)()
    assert calls == [(4, depth) for depth in range(8, 0, -1)] * 2
    calls.clear()
    one_pass = benchmark.make_training_epoch("mnist", ALL_DEPTHS, 8)
    for _ in range(2):  # timed again, it starts over
        one_pass()
    assert calls == [(4, ALL_DEPTHS)] * 4


def test_random_data_has_the_rows_shape():
    data = benchmark.make_random_data("cifar10", 5)
    assert (data.train.images.shape, data.train.images.dtype) == ((5, 3, 32, 32), torch.uint8)


def test_searches_of_one_problem_are_compared_across_profiles(tmp_path):
    def search(seconds, *arguments, **settings):
        write_csv(pretend_run(tmp_path, *arguments, **settings) / "timing.csv", [{"epoch": 1, "seconds": seconds}])

    search(100.0, "mnist", "odn", "paper", "released")
    assert benchmark.read_search_costs(tmp_path).empty
    search(30.0, "mnist", "odn", "quick", "equal", bfloat16=True)  # a precision is no other problem
    search(50.0, "mnist", "odn", "quick", "equal", 1)
    search(70.0, "mnist", "full", "quick", "equal")
    search(10.0, "mnist", "odn", "quick", "equal", target_pct=95.0)
    search(10.0, "svhn", "odn", "quick", "equal")
    search(10.0, "mnist", "odn", "quick", "fast")
    lines = benchmark.read_search_costs(tmp_path).set_index(["profile", "rule", "variant"])
    assert dict(lines["seconds"]) == {
        ("paper", "released", "odn"): 100.0, ("quick", "equal", "full"): 70.0, ("quick", "equal", "odn"): 40.0,
    }  # fmt: skip
    assert lines["n"].to_list() == [1, 1, 2]
    assert lines["macs_of_released"].to_list() == [1.0, 1.0, 1.0]
    assert set(lines[benchmark.PROBLEM_COLUMNS].itertuples(index=False)) == {("mnist", False, "resnet18", 64, 99.0, "")}


def test_what_was_measured_is_drawn(tmp_path):
    (tmp_path / "reduced").mkdir()
    benchmark.write_results(tmp_path, "reduced")
    assert not list((tmp_path / "reduced").iterdir())
    units = {"step": "images/s", "search": "TMAC", "latency": "ms", "memory": "MB"}
    lines = [benchmark.make_record(measure, 3.0, 2.0, unit, 1) for measure, unit in units.items()]
    assert {line["ratio"] for line in lines} == {1.5}
    assert "threads" in lines[0]["machine"]
    write_csv(tmp_path / "reduced" / "benchmark.csv", lines)
    benchmark.write_results(tmp_path, "reduced")
    assert (tmp_path / "reduced" / "figures" / "benchmark.png").stat().st_size > 1000
