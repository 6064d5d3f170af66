"""Memory in use is measured in a process of its own, and its reduction judged beside the file's."""

import pandas as pd
import pytest

from odnlib.paper import TABLE_1
from studies import memory


@pytest.mark.slow
def test_a_whole_network_takes_more_memory_and_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "TABLE_1", {"mnist": TABLE_1["mnist"]})
    monkeypatch.setattr(memory, "ROUNDS", 1)
    (tmp_path / "quick").mkdir()
    measured = memory.measure_table_1(tmp_path, "quick").set_index("variant")
    assert measured["file_mb"].round(1).to_dict() == {"full": 44.8, "odn": 0.6}
    assert measured.loc["full", "used_mb"] > 44.8 > measured.loc["odn", "used_mb"] > 0.6
    monkeypatch.setattr(memory, "TABLE_1", {})
    assert len(memory.measure_table_1(tmp_path, "quick")) == 2
    assert memory.read_results(tmp_path, "paper").empty


@pytest.mark.parametrize(("used_mb", "verdict"), [(1.5, "holds"), (9.0, "does not hold")])
def test_memory_falls_by_as_much_as_the_file_or_does_not(used_mb, verdict):
    table = pd.DataFrame(
        {"row": "mnist", "variant": ["full", "odn"], "file_mb": [44.8, 0.6], "used_mb": [90.0, used_mb]}
    )
    judged, why = memory.judge_claim(table)
    assert judged == verdict
    assert f"(90 to {used_mb:.1f} MB) and 98.7 on disk" in why
