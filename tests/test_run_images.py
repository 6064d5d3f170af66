"""Own images through run_all.sh: what their notebook is given, and what is refused."""

import re
from itertools import product

import pytest
from PIL import Image

import run_show
from tests.test_run_all import planned, start


def test_what_their_notebook_prints_is_shown_as_it_comes(tmp_path, capsys):
    (job,) = planned("--images", str(own_folder(tmp_path)), "--target", "90")
    with run_show.ProgressBlock([job], tmp_path) as block:
        job.state, job.printed = "running", ["9 networks, about 5 minutes"]
        block.show()
        block.show()
    shown = capsys.readouterr().out
    assert shown.startswith("9 networks, about 5 minutes\n0 of 1; 10 own images: running")
    assert shown.count("9 networks") == 1


def own_folder(tmp_path):
    for class_name, number in product("ab", range(5)):
        (tmp_path / "Pets" / class_name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "Pets" / class_name / f"{number}.png").touch()  # looked at by the notebook
    return tmp_path / "Pets"


def test_own_images_are_given_to_their_notebook(tmp_path):
    asked = ["--images", str(own_folder(tmp_path)), "--target", "90%", "--set", "max_bytes=9000", "--set", "flip=false"]
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
    assert title == "refused: 10 own images"
    assert re.match("  with 8 validation images an accuracy of 90 % is uncertain by .*: .* are needed", why)
    assert [file.read_text() for file in earlier.parent.iterdir()] == ["an answer"]
