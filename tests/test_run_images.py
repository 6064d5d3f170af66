"""Own images through run_all.sh: what their notebook is given, and what is refused."""

import re
from itertools import product

import pytest
from PIL import Image

from tests.test_run_all import planned, start


def test_own_images_are_given_to_their_notebook(tmp_path):
    for class_name, number in product("ab", range(5)):
        (tmp_path / "Pets" / class_name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "Pets" / class_name / f"{number}.png").touch()  # looked at by the notebook
    asked = ["--images", str(tmp_path / "Pets"), "--target", "90%", "--set", "max_bytes=9000", "--set", "flip=false"]
    (job,) = planned(*asked, "--set", "depth_epochs=3")
    expected = {"images": str(tmp_path / "Pets"), "target_pct": 90.0, "profile": "quick", "max_bytes": 9000}
    expected |= {"flip": False, "overrides": {"depth_epochs": 3}}
    assert (job.source.name, job.parameters | expected) == ("10_your_dataset.ipynb", job.parameters)
    assert job.executed.name == "10_your_dataset-pets-90-max_bytes_9000-flip_false.ipynb"  # others are left alone
    (job,) = planned(*asked, "--profile", "smoke")
    assert job.parameters["profile"] == "smoke"


@pytest.mark.slow
def test_images_that_are_refused_leave_an_earlier_answer_alone(tmp_path):
    """Nine of validation tell nothing: that is said, without a traceback, and what lay there is not taken away."""
    for class_name, number in product("ab", range(30)):
        (tmp_path / "pets" / class_name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 8 * number + (class_name == "b")).save(tmp_path / "pets" / class_name / f"{number}.png")
    earlier = tmp_path / "quick" / "notebooks" / "10_your_dataset-pets-90.ipynb"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("an answer")
    shown = start("--images", tmp_path / "pets", "--target", "90", "--results-dir", tmp_path)
    assert shown.returncode == 2
    *_, title, why = shown.stdout.splitlines()
    assert title.startswith("refused: 10 The smallest network")
    assert re.match("  with 8 validation images an accuracy of 90 % is uncertain by .*: .* are needed", why)
    assert [file.read_text() for file in earlier.parent.iterdir()] == ["an answer"]
