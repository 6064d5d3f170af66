"""Images are looked at before they are trusted: what is used, what is left out and why, what classes may be called."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from odnlib.data import DataError
from studies import own, pictures, predict
from tests.test_own import pets, picture

SPLITS = ("train", "val", "test")


def counts(data):
    """Images per split, all classes together."""
    return own.count_images(data)[own.TOTAL_COLUMN].tolist()


def reasons(data):
    """Reason -> how many files are not used."""
    return own.count_unused_files(data)["files"].to_dict()


def saved_again(source, to):
    """The same pixels in another file format."""
    to.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).save(to)


# The same picture twice


@pytest.mark.parametrize("copy", [shutil.copy, saved_again])
def test_a_picture_of_training_is_kept_out_of_validation_and_test(tmp_path, copy):
    for split in SPLITS:
        pets(tmp_path / split)
    copy(tmp_path / "train/cat/3.png", tmp_path / "test/cat/copy.bmp")
    copy(tmp_path / "train/dog/3.png", tmp_path / "val/dog/copy.bmp")
    copy(tmp_path / "val/dog/4.png", tmp_path / "test/dog/copy.bmp")
    data = own.load_images(str(tmp_path))
    assert counts(data) == [20, 20, 20]
    told = own.count_unused_files(data)
    assert told["files"].to_dict() == {
        "the same picture is in train already": 2,
        "the same picture is in validation already": 1,
    }
    assert "test/cat/copy.bmp = train/cat/3.png" in " ".join(told["which"])
    assert "3 files not used" in data.train.dataset.source


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_an_image_of_its_own_is_refused(tmp_path, split):
    pets(tmp_path / "train")
    shutil.copytree(tmp_path / "train", tmp_path / split)
    with pytest.raises(DataError, match=f"{split}.*no image of its own is left: .*20 the same picture is in train"):
        own.load_images(str(tmp_path))


def test_a_picture_in_two_classes_has_no_label_and_one_twice_in_a_class_is_used_once(tmp_path):
    place = pets(tmp_path, images=20)
    shutil.copy(tmp_path / "cat/0.png", tmp_path / "dog/is_a_cat.png")
    shutil.copy(tmp_path / "cat/1.png", tmp_path / "cat/again.png")
    data = own.load_images(place)
    assert sum(counts(data)) == 39
    assert reasons(data) == {"the same picture is in two classes": 2, "the same picture is in train already": 1}
    shutil.rmtree(tmp_path / "dog")
    shutil.copytree(tmp_path / "cat", tmp_path / "dog")
    with pytest.raises(DataError, match=r"no images in class folders.*in two classes"):
        own.load_images(place)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("ab"), st.integers(0, 12)), max_size=12))
def test_no_picture_is_ever_in_two_splits_and_every_file_is_accounted_for(tmp_path_factory, copies):
    place = tmp_path_factory.mktemp("copies")
    for split in SPLITS:
        pets(place / split, images=3, classes="ab")
    originals = sorted(place.glob("*/*/*.png"))
    for number, (split, label, source) in enumerate(copies):
        shutil.copy(originals[source], place / split / label / f"copy{number}.png")
    try:
        data = own.load_images(str(place))
    except DataError as error:
        assert "the same picture" in str(error)  # noqa: PT017 (too few may be left)
        return
    every = torch.cat([split.images for split in (data.train, data.validation, data.test)]).flatten(1)
    assert len(every.unique(dim=0)) == len(every) == len(originals) + len(copies) - sum(reasons(data).values())


# Files that are not used


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat/1.HEIC", "image format that cannot be read"),
        ("cat/1.orf", "image format that cannot be read"),
        ("cat/IMG_0001", "no ending in the name"),
        ("cat/new/1.png", "in a folder inside a class folder"),
        ("1.png", "outside the class folders"),
        ("cat/broken.jpg", pictures.REASON_DAMAGED),
        ("cat/link", "folder behind a link"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_and_many_are_refused(tmp_path, name, reason):
    place, elsewhere = pets(tmp_path / "pets", images=20), picture(tmp_path / "elsewhere/1.png")
    for number in ("", "_2", "_3"):
        path = (tmp_path / "pets" / name).with_name(Path(name).stem + number + Path(name).suffix)
        path.parent.mkdir(exist_ok=True)
        if reason == "folder behind a link":
            path.symlink_to(elsewhere.parent)
        else:
            path.write_bytes(b"no image" if reason == pictures.REASON_DAMAGED else elsewhere.read_bytes())
        if not number:
            data = own.load_images(place)
            assert sum(counts(data)) == 40
            assert reasons(data) == {reason: 1}
            assert name in own.count_unused_files(data)["which"].item()
    with pytest.raises(DataError, match=f"too many images would be left out: 3 {reason} .*: put them into the folder"):
        own.load_images(place)


def test_files_that_are_no_images_are_counted_however_many_there_are(tmp_path):
    place = pets(tmp_path)
    for number in range(10):
        (tmp_path / "cat" / f"{number}.txt").touch()
    for name in ("README", "Thumbs.db", ".DS_Store", "cat/._0.png"):
        (tmp_path / name).touch()
    data = own.load_images(place)
    assert reasons(data) == {pictures.REASON_HIDDEN: 2, pictures.REASON_NO_IMAGE: 12}
    assert "and 7 more" in " ".join(own.count_unused_files(data)["which"])


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:200]), lambda path: path.unlink()])
def test_a_truncated_image_and_a_link_to_nowhere_are_named(tmp_path, spoil):
    place = pets(tmp_path)
    (tmp_path / "cat/link.png").symlink_to(tmp_path / "cat/0.png")
    spoil(tmp_path / "cat/0.png")
    (tmp_path / "cat/0.png").exists() and (tmp_path / "cat/link.png").unlink()
    data = own.load_images(place)
    assert sum(counts(data)) == 19
    assert reasons(data) == {pictures.REASON_DAMAGED: 1}


def test_a_class_behind_a_link_is_a_class_and_a_circle_ends(tmp_path):
    pets(tmp_path / "elsewhere")
    for name in ("cat", "dog"):
        (tmp_path / "pets").mkdir(exist_ok=True)
        (tmp_path / "pets" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere/cat/circle").symlink_to(tmp_path / "pets")
    data = own.load_images(str(tmp_path / "pets"))
    assert sum(counts(data)) == 20
    assert reasons(data) == {"folder behind a link": 1}


# Reading


def test_large_images_are_read_one_at_a_time_and_others_side_by_side(tmp_path, monkeypatch):
    pets(tmp_path, size=(40, 40))
    files, met, at_once, most = pictures.list_files(tmp_path), threading.Barrier(2), [], []

    def count(image):
        at_once.append(image)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.remove(image)

    monkeypatch.setattr(pictures, "LARGE_IMAGE_PIXELS", 39 * 40)
    pictures.apply_to_images(files, count, "pets", "reading")
    assert max(most) == 1
    monkeypatch.setattr(pictures, "LARGE_IMAGE_PIXELS", 40 * 40)
    pictures.apply_to_images(files, lambda image: met.wait(timeout=20), "pets", "reading")


@pytest.mark.parametrize(
    ("kind", "mode"), [("jpg", "RGB"), ("jpg", "L"), ("jpg", "CMYK"), ("png", "RGB"), ("png", "P")]
)
def test_a_large_photograph_is_scaled_down_roughly_before_it_is_copied_and_looks_the_same(tmp_path, kind, mode):
    size = (1200, 900)
    waves = np.sin(np.arange(1200) / 90)[None] * np.cos(np.arange(900) / 60)[:, None]
    image = Image.fromarray(np.uint8(127 + 100 * waves)).convert("RGB").convert(mode)
    image.save(tmp_path / f"0.{kind}")
    with Image.open(tmp_path / f"0.{kind}") as opened:
        small = predict.prepare_image(opened, 64, 64, 3)
        assert opened.size == (size if kind == "png" else (300, 225))  # a JPEG is decoded at a quarter
    whole = np.asarray(image.convert("RGB").crop((150, 0, 1050, 900)).resize((64, 64)), dtype=float)
    assert np.abs(small - whole).mean() < 2
