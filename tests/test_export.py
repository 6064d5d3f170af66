"""What is taken away computes what was trained."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file

from odnlib import experiment, metrics, models, recipes
from odnlib.data import Split
from odnlib.files import ROOT, RunConflict, read_json
from studies import export, pictures
from studies.predict import prepare_image
from tests.conftest import TINY, tiny, tiny_recipe

DATA = tiny()
FILES = {"README.md", "model.json", "model.onnx", "model.safetensors", "predict.py"}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """The folder of a finished search on tiny data."""
    return experiment.run(tiny_recipe(), lambda: DATA, tmp_path_factory.mktemp("results"))


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [True, False])
def test_files_compute_what_was_trained(search, tmp_path, chosen):
    """The depth that the search chose, and one that it only tried."""
    result = read_json(search / "result.json")
    depth = result["depth"] if chosen else 1
    about = export.export_network(search, DATA, tmp_path, depth)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert about["onnx_largest_difference"] < export.LARGEST_DIFFERENCE
    tried = pd.read_csv(search / "depths.csv").set_index("depth").loc[depth]
    assert (about["depth"], about["params"]) == (depth, tried["params"])
    assert about["val_acc_pct"] == pytest.approx(tried["val_acc_pct"])
    network = export.load_network(search, DATA.test.dataset, depth)
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    tested = pytest.approx(about["test_acc_pct"])
    assert metrics.evaluate(network, DATA.test)[1][0] == tested
    assert export.onnx_accuracy_pct(tmp_path / "model.onnx", DATA.test) == tested
    assert not chosen or result["test_acc_pct"] == tested
    card = (tmp_path / "README.md").read_text()
    digest = read_json(search / "provenance.json")["data_sha256"]["train"]
    for words in (f"{about['test_acc_pct']:.2f} % on 30 test images", "uint8 (N, 8, 8, 1)", digest):
        assert words in card


def test_onnxruntime_alone_gives_calibrated_probabilities(search, tmp_path):
    about = export.export_network(search, DATA, tmp_path, 1)
    network, file = export.load_network(search, DATA.test.dataset, 1), tmp_path / "model.onnx"
    session = onnxruntime.InferenceSession(file)
    images = {"images": DATA.test.images.permute(0, 2, 3, 1).numpy()}
    (probabilities,) = session.run(["probabilities"], images)
    with torch.inference_mode():
        expected = (network(DATA.test.normalise(DATA.test.images)) / about["temperature"]).softmax(1)
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == []
    with torch.no_grad():
        network.head.bias += torch.tensor([0.02, 0.0, 0.0])
    with pytest.raises(export.ExportError, match=r"log-probabilities differ by up to 0.0[01]"):
        export.check_onnx_file(file, network, DATA.validation, about["temperature"])
    with pytest.raises(export.ExportError, match="log-probabilities differ"):
        export.check_onnx_file(
            file, export.load_network(search, DATA.test.dataset, 1), DATA.validation, about["temperature"] * 1.1
        )


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_by_which_the_logits_are_too_large(true):
    """Labels drawn from the probabilities of logits, which a network then gives `true` times as large."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 3, generator=random, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    split = Split(true * logits[:, :, None, None], labels, replace(TINY, image_shape=(3, 1, 1)))
    assert export.fit_temperature(torch.nn.Flatten(), split) == pytest.approx(true, rel=0.05)


def test_a_network_with_all_of_a_few_images_right_is_not_certain():
    images = 20 * torch.eye(3).repeat(4, 1)[:, :, None, None]
    split = Split(images, torch.arange(3).repeat(4), replace(TINY, image_shape=(3, 1, 1)))
    surest = float((20 / torch.tensor(export.fit_temperature(torch.nn.Flatten(), split))).exp())
    assert surest / (surest + 2) == pytest.approx(13 / 15, abs=1e-3)  # of 12 images and one of each class


def odd_image(random):
    """An image of odd size and mode, and an ending that can hold it."""
    size, endings = tuple(random.integers(1, 120, 2)), {"L": "png jpg tif webp bmp gif", "RGB": "png jpg tif webp bmp"}
    endings |= {"RGBA": "png webp", "LA": "png", "P": "png gif", "1": "png tif", "CMYK": "jpg tif", "I;16": "png tif"}
    mode = random.choice(list(endings))
    pixels = random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels.view("<u2")[:, :, 0])
    elif mode == "LA":
        image = Image.merge("LA", image.split()[2:])
    elif mode not in ("RGBA", "CMYK"):
        image = image.convert("RGB").convert(mode)
    elif mode == "CMYK":
        image = Image.fromarray(pixels, "CMYK")
    more, ending = {}, random.choice(endings[mode].split())
    if ending in ("jpg", "webp", "png") and random.random() < 0.5:
        (exif := Image.Exif())[ExifTags.Base.Orientation] = int(random.integers(1, 9))
        more["exif"] = exif
    if mode == "P" and random.random() < 0.5:
        more["transparency"] = int(random.integers(0, 256))
    return image, ending, more


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_predict_gives_pytorchs_answers_for_1000_images_of_odd_sizes_and_modes(tmp_path, channels):
    """In a process that has neither PyTorch nor us; half of them to a network of grey, half to one of colour images."""
    shape, random = (channels, 24, 24), np.random.default_rng(channels)
    dataset = replace(TINY, image_shape=shape, class_names=("a,b", '"', "ä"), mean=0.4, std=0.2)
    torch.manual_seed(0)
    network = models.build("resnet18", channels, 3, 8).truncate(2).eval()
    export.write_onnx(network, dataset, tmp_path / "model.onnx", temperature=0.1)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number in range(500):
        image, ending, more = odd_image(random)
        image.save(tmp_path / "photos" / ("more" if number % 2 else "") / f"{number}.{ending}", **more)
    images = sorted((tmp_path / "photos").rglob("*.*"))
    files = pd.DataFrame({"path": images, "file": "", "reason": ""})
    read = pictures.apply_to_images(
        files, partial(prepare_image, height=24, width=24, channels=channels), "photos", "reading"
    )
    assert len(read) == 500
    pixels = torch.tensor(np.stack(read.tolist()).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        expected = (network(Split(pixels, torch.zeros(500), dataset).normalise(pixels)) / 0.1).softmax(1).numpy()
    (tmp_path / "photos" / "broken.jpg").write_text("none")
    (tmp_path / "photos" / "notes.txt").write_text("none")
    (tmp_path / "photos" / "._0.png").write_text("none")
    shutil.copy(export.predict.__file__, tmp_path / "predict.py")
    alone = "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'odnlib', 'pandas']); sys.argv = sys.argv[1:]; "
    command = [alone + "runpy.run_path(sys.argv[0], run_name='__main__')", "predict.py", "photos"]
    done = subprocess.run([sys.executable, "-c", *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "2 other files in photos are hidden or cannot be read: .png, .txt" in done.stderr
    assert "1 of 501 images cannot be read" in done.stderr
    answers = pd.read_csv(io.StringIO(done.stdout)).set_index("file")
    assert "cannot identify" in answers.loc["photos/broken.jpg", "problem"]
    answers = answers.loc[[str(path.relative_to(tmp_path)) for path in images]]
    every = answers[[f"probability of {name}" for name in dataset.class_names]].to_numpy()
    np.testing.assert_allclose(every, expected, atol=1e-4)
    sure = np.sort(expected, 1)[:, -1] - np.sort(expected, 1)[:, -2] > 1e-4
    assert sure.mean() > 0.9
    assert (answers["class"] == np.array(dataset.class_names)[expected.argmax(1)])[sure].all()
    np.testing.assert_allclose(answers["probability"], expected.max(1), atol=1e-4)
    assert len(set(answers["class"])) > 1


def test_predict_says_what_it_takes_and_refuses_what_is_not_there(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.onnx").touch()
    for asked, told in {
        "--help": "CSV file to write",
        "none.jpg": "no none.jpg",
        "empty": "no images in empty",
    }.items():
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["predict.py", asked, "--model", "model.onnx"])
        with pytest.raises(SystemExit):
            export.predict.main()
        assert told in "".join(capsys.readouterr())


def test_the_card_shows_names_as_they_are(search, tmp_path):
    about, run = export.export_network(search, DATA, tmp_path, 1), recipes.read_run(search)
    for name in ("a|b", "$1_to_$5", "<b>", r"\x", "*_`[#"):
        dataset = replace(DATA.test.dataset, title=name, source=name)
        card = export.make_model_card(run, about | {"classes": [name, "b", "c"]}, dataset)
        for line in card.splitlines():
            assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 3
        assert re.sub(r"\\(.)", r"\1", card).count(name) >= 3
        assert name.isalnum() or name not in card.replace(r"\\", "")


def test_old_files_that_give_logits_can_be_read():
    for file in (ROOT / "results").glob("*/networks/*/*.onnx"):
        images = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
        assert export.run_onnx(file, images).shape == (3, 26 if file.parent.name == "emnist" else 10)


def test_what_is_not_there_is_refused(search, tmp_path):
    with pytest.raises(RunConflict, match=r"depth 99 was not tried: choose one of 1"):
        export.export_network(search, DATA, tmp_path, depth=99)
    for name in ("recipe.json", "result.json", "depths.csv"):
        (tmp_path / name).write_bytes((search / name).read_bytes())
    with pytest.raises(RunConflict, match="is not there: take its folder away, and the run is made again"):
        export.load_network(tmp_path, DATA.train.dataset)
