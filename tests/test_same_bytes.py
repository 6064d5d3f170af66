"""Training gives the bytes that it gave at the commit of `same_bytes.base`, and `same_bytes` would tell if not."""

import json
import os
import subprocess
import sys

import pytest

from odnlib import ROOT
from tests.same_bytes import differences, main


@pytest.mark.slow
def test_the_bytes_of_the_base(monkeypatch):
    base = (ROOT / "tests/same_bytes.base").read_text().strip()
    if subprocess.run(["git", "cat-file", "-e", f"{base}^{{commit}}"], cwd=ROOT).returncode:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"no git history back to {base}: fetch all of it")
    monkeypatch.setattr(sys, "argv", ["same_bytes.py", "--short", base, str(ROOT)])
    assert main() == 0, "the table above says what differs"


def test_the_last_bit_counts_and_what_is_mapped_does_not(tmp_path):
    old, new, other = (tmp_path / name for name in ("old", "new", "other"))
    for folder, loss in {old: 0.1, new: 0.1, other: 0.10000000000000002}.items():
        folder.mkdir()
        (folder / "depths.csv").write_text(f"thop_macs_m,loss\n{folder},{loss}\n")
        (folder / "result.json").write_text(json.dumps({"loss": loss, "tag": str(folder)}))
    assert [line.split(":")[0] for line in differences(old, new)] == ["epochs.csv", "network.safetensors"]  # missing
    assert len(differences(old, other)) == 4
