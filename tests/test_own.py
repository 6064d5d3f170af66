"""Own images: what is read, what is refused, and how it is split."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from odnlib import recipes
from odnlib.data import DataError
from studies import own


def picture(path, size=(20, 20), mode="L"):
    """Noise that is no other path's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(os.fsencode(path))).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def pets(place, images=10, classes=("cat", "dog"), **kind):
    for name in classes:
        for i in range(images):
            picture(place / name / f"{i}.png", **kind)
    return str(place)


def test_every_image_is_in_one_split_and_every_class_in_all(tmp_path):
    picture(tmp_path / ".thumbs" / "0.png")  # hidden: no class
    data = own.load_images(pets(tmp_path, images=20))
    assert own.count_images(data).to_numpy().tolist() == [[14, 14, 28], [3, 3, 6], [3, 3, 6]]
    every = torch.cat([split.images for split in (data.train, data.validation, data.test)]).flatten(1)
    assert len(every.unique(dim=0)) == 40
    assert data.train.dataset.class_names == ("cat", "dog")
    normal = torch.cat([images for images, _ in data.train.batches(100)])
    assert abs(float(normal.mean())) < 1e-4
    assert abs(float(normal.std(unbiased=False)) - 1) < 1e-4


def test_the_same_images_have_the_same_name_and_others_another(tmp_path):
    first = own.make_row_name(own.load_images(pets(tmp_path)))
    assert recipes.OWN_ROW_PATTERN.fullmatch(first)
    assert own.make_row_name(own.load_images(str(tmp_path))) == first
    assert own.make_row_name(own.load_images(str(tmp_path), flip=False)) != first
    picture(tmp_path / "cat" / "new.png")
    assert own.make_row_name(own.load_images(str(tmp_path))) != first


def test_given_splits_are_kept(tmp_path):
    for part, images in {"train": 12, "val": 3, "test": 4}.items():
        pets(tmp_path / part, images)
    assert own.count_images(own.load_images(str(tmp_path)))[own.TOTAL_COLUMN].tolist() == [24, 6, 8]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "test/cat"])
def test_an_empty_split_is_not_replaced_by_training_images(tmp_path, name):
    pets(tmp_path / "train")
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match=f"{name[:4]}.*: no images in it: fill it, or remove it"):
        own.load_images(str(tmp_path))


@pytest.mark.parametrize(
    ("size", "asked", "wanted"), [((200, 90), 0, 64), ((30, 24), 0, 24), ((20, 20), 32, 32), ((9, 9), 0, 16)]
)
def test_sizes(tmp_path, size, asked, wanted):
    data = own.load_images(pets(tmp_path, size=size), image_size=asked)
    assert data.train.dataset.image_shape == (1, wanted, wanted)


def test_mixed_sizes_and_colours_become_alike_and_transparency_white(tmp_path):
    pets(tmp_path)
    Image.new("RGBA", (60, 30), (0, 0, 0, 0)).save(tmp_path / "cat" / "0.png")
    data = own.load_images(str(tmp_path))
    assert data.train.dataset.image_shape == (3, 20, 20)
    every = torch.cat([data.train.images, data.validation.images, data.test.images])
    assert (every == 255).all(dim=(1, 2, 3)).sum() == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no folder .*pets"),
        (lambda x: shutil.rmtree(x / "dog"), "only the class 'cat': put the images of each class into a folder of"),
        (lambda x: [(x / f"dog/{i}.png").unlink() for i in range(7)], "images .'dog' 3.: 5 per class are the least"),
        (lambda x: (x / "bird").mkdir(), "no images in bird: a folder there is a class; fill it or remove it"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_words(tmp_path, spoil, message):
    place = pets(tmp_path / "pets")
    spoil(tmp_path / "pets")
    with pytest.raises(DataError, match=message):
        own.load_images(place)


def test_what_is_too_small_or_more_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    place = pets(tmp_path)
    with pytest.raises(DataError, match=r"image_size 5 is not 0 or a number of pixels from 16 to 1024"):
        own.load_images(place, image_size=5)
    monkeypatch.setattr(own.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000})())
    with pytest.raises(DataError, match=r"20 images of 20x20 pixels take 0.0 GB, and 0.0 GB of memory are free"):
        own.load_images(place)


@pytest.mark.slow
def test_example(tmp_path):
    place = own.make_example_folder(tmp_path / "example_shapes")
    assert len(list(place.iterdir())) == 10
    assert recipes.resolve(own.make_row_name(own.load_images(str(place)), drawn=True), "odn", "smoke", "equal").embedded
    for name in ("example_shapes", "example_shapes_2", "Example Shapes"):  # somebody's own folder may be called so
        renamed = place.rename(tmp_path / name)
        place, mine = renamed, own.make_row_name(own.load_images(str(renamed)))
        assert recipes.OWN_ROW_PATTERN.fullmatch(mine)
        assert not recipes.resolve(mine, "odn", "smoke", "equal").embedded
    assert not recipes.resolve("own_photos_01234567", "odn", "quick", "equal").embedded


def test_own_images_are_all_used_and_not_for_the_few_epochs_of_large_datasets():
    own_images, emnist = (recipes.resolve(row, profile="quick") for row in ("own_photos_01234567", "emnist"))
    assert (own_images.depth_epochs, emnist.depth_epochs) == (16, 8)
    with pytest.raises(recipes.RecipeError, match="own images are all used"):
        recipes.resolve("own_photos_01234567", "odn", "quick", "equal", train_images=5)
