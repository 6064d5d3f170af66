"""What the folders of splits and classes of own images may be called."""

import os
import unicodedata

import matplotlib.pyplot as plt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odnlib.data import DataError
from odnlib.presets import OWN_ROW_PATTERN
from studies import own, pictures, plots
from tests.test_own import pets, picture
from tests.test_pictures import counts


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("TRAIN", "Validation", "TEST"), ("training", "", "")])
def test_splits_may_be_written_in_any_case(tmp_path, names):
    for name, images in zip(names, (20, 4, 3), strict=True):
        if name:
            pets(tmp_path / name, images)
    data = own.load_images(str(tmp_path))
    assert counts(data) == ([40, 8, 6] if all(names) else [28, 6, 6])
    assert data.train.dataset.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["train", "Test", "val", "training"])
@pytest.mark.parametrize("split", ["", "train"])
def test_a_class_may_be_called_like_a_split(tmp_path, name, split):
    pets(tmp_path / split, classes=(name, "bus"))
    assert own.load_images(str(tmp_path)).train.dataset.class_names == tuple(sorted((name, "bus")))


def right(place, name, images):
    """Load a class of this name beside another and check that it is counted, drawn and tabled as itself."""
    pets(place, images, classes=[name])
    data = own.load_images(pets(place, classes=["another one"]))
    label = data.train.dataset.class_names.index(unicodedata.normalize("NFC", name))
    table = own.count_images(data)
    assert table.shape == (3, 3)
    assert table.iloc[:, label].sum() == sum((part.labels == label).sum() for part in vars(data).values()) == images
    figure = plots.draw_samples(data.train, 2)
    figure.draw_without_rendering()
    assert name.strip() == "" or figure.axes[label].get_title() == data.train.dataset.class_names[label]
    plt.close(figure)


@pytest.mark.filterwarnings("ignore:Glyph")  # the figures' font has not every script
@pytest.mark.parametrize(
    "name", ["all", "all images", "class", "$1_to_$5", "$5", "a|b", "<b>", r"\frac", "%", "x" * 200]
)
def test_a_class_may_be_called_anything(tmp_path, name):
    right(tmp_path, name, 12)


letters = st.characters(codec="utf-8", exclude_categories=own.UNWRITABLE_UNICODE_CATEGORIES, exclude_characters="/")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15, deadline=None)
@given(st.text(letters, min_size=1, max_size=30).filter(lambda name: name[0] != "."))
def test_any_text_may_be_a_class(tmp_path_factory, name):
    right(tmp_path_factory.mktemp("named"), name, 5)


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"a\tb", b"\x1b[31m", "line\u2028break".encode()])
def test_what_cannot_be_written_as_a_class_is_refused_before_images_are_read(tmp_path, name, monkeypatch):
    monkeypatch.setattr(pictures, "apply_to_images", lambda *_: pytest.fail("images are being read"))
    place = pets(tmp_path, classes=("cat", "dog", os.fsdecode(name)))
    with pytest.raises(DataError, match=r"signs that are not UTF-8, or line breaks .*: rename these folders") as told:
        own.load_images(place)
    assert str(told.value).isprintable()


def test_other_names_that_are_no_text_can_be_printed(tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    pets(place)
    (place / "cat" / os.fsdecode(b"\xff.png")).write_text("no image")
    picture(place / "dog" / os.fsdecode(b"\xfe.png"))
    data = own.load_images(str(place))
    assert sum(counts(data)) == 21
    assert own.count_unused_files(data).to_string().encode()
    assert data.train.dataset.title == r"caf\xe9"
    assert OWN_ROW_PATTERN.fullmatch(own.make_row_name(data))


@pytest.mark.parametrize("length", [40, 41, 200, 255])
def test_a_long_folder_name_makes_a_short_name_for_its_runs(tmp_path, length):
    row = own.make_row_name(own.load_images(pets(tmp_path / ("leaf photos " + "x" * 300)[:length])))
    assert OWN_ROW_PATTERN.fullmatch(row)
    assert len(row) < 60


@pytest.mark.parametrize("second", ["", "train/", "test/"])
def test_two_unicode_spellings_are_one_class(tmp_path, second):
    first, place = "train/" * bool(second), tmp_path
    for part, form in ((first, "NFC"), (second, "NFD")):
        pets(place / part, classes=[unicodedata.normalize(form, "café"), "thé"])
    data = own.load_images(str(place))
    assert data.train.dataset.class_names == ("café", "thé")
    assert own.count_images(data).iloc[:, 0].sum() == 20


def test_a_class_that_training_does_not_have_is_named(tmp_path):
    pets(tmp_path / "train")
    pets(tmp_path / "test", classes=("Cat", "dog"))
    with pytest.raises(DataError, match="train: no images of 'Cat', but of 'cat', 'dog'"):
        own.load_images(str(tmp_path))
