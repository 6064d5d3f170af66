"""The depth that anybody's blocks need: README's lines, and what they promise."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from odnlib import optimal_depth
from odnlib.data import DataError
from odnlib.files import ROOT
from tests.conftest import tiny_split


def convolution(channels_in, channels_out):
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, 2, 1), nn.BatchNorm2d(channels_out), nn.ReLU())


def find(**settings):
    torch.manual_seed(1)
    stem, blocks = nn.Conv2d(1, 8, 3, padding=1), [convolution(8, 8), convolution(8, 16), convolution(16, 16)]
    images = tiny_split(200, 1)
    settings = {"target_pct": 100.0, "epochs": 2} | settings
    return stem, optimal_depth(stem, blocks, images.images, images.labels, device="cpu", **settings)


def test_other_blocks_are_searched_and_cut_out(tmp_path, capsys):
    stem, found = find(folder=tmp_path)
    assert "2 epochs a depth" in capsys.readouterr().out
    assert found.table["epochs"].tolist() == [2] * found.depth + [0] * (3 - found.depth)
    assert sorted(found.by_products) == list(range(1, found.depth + 1))
    assert found.network(torch.zeros(5, 1, 8, 8)).shape == (5, 3)
    assert not torch.equal(found.network.stem.weight, stem.weight)  # which stays as it was
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.csv")}
    _, again = find(folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.csv")} == before
    assert torch.equal(again.network.head.weight, found.network.head.weight)


def test_an_easy_target_is_met_by_the_first_block_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    _, found = find(target_pct=1.0)
    assert (found.depth, found.met_goal) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_floats_datasets_and_vectors_of_features():
    images = tiny_split(90, 1)
    pairs = torch.utils.data.TensorDataset(images.images / 255.0, images.labels)
    stem, blocks = nn.Flatten(), [nn.Sequential(nn.Linear(n, 16), nn.ReLU()) for n in (64, 16)]
    found = optimal_depth(stem, blocks, pairs, target_pct=100.0, epochs=1, device="cpu")
    assert found.network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_images_and_labels_that_do_not_fit():
    with pytest.raises(DataError, match=r"labels \(N,\) from 0"):
        optimal_depth(nn.Identity(), [nn.Identity()], torch.zeros(9, 1, 8, 8), torch.zeros(8), target_pct=50.0)


@pytest.mark.slow
def test_the_lines_in_readme(tmp_path):
    (lines,) = re.findall(r"```python\n([^`]*optimal_depth[^`]*)```", (ROOT / "README.md").read_text())
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "depth" in done.stdout
