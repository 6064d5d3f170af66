"""Own images: what is read, what is refused, and how it is split."""

import numpy as np
import pytest
import torch
from PIL import Image

from odnlib import recipes
from odnlib.data import DataError
from odnlib.files import ROOT
from studies import own, pictures


def picture(path, size=(20, 20), value=0, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 60, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(value)).convert(mode).save(path)


def folder(tmp_path, classes=("cat", "dog"), images=10, **kind):
    for number, name in enumerate(classes):
        for i in range(images):
            picture(tmp_path / "pets" / name / f"{i}.png", value=90 * number + i, **kind)
    return tmp_path / "pets"


def test_every_image_is_in_one_split_and_every_class_in_all(tmp_path):
    data = own.load(str(folder(tmp_path, images=20)))
    assert own.summary(data).to_numpy().tolist() == [[14, 14, 28], [3, 3, 6], [3, 3, 6]]
    every = torch.cat([split.images for split in (data.train, data.validation, data.test)]).flatten(1)
    assert len(every.unique(dim=0)) == 40
    assert data.train.dataset.class_names == ("cat", "dog")
    assert data.train.dataset.image_shape == (1, 20, 20)
    normal = torch.cat([images for images, _ in data.train.batches(100)])
    assert abs(float(normal.mean())) < 1e-4
    assert abs(float(normal.std(unbiased=False)) - 1) < 1e-4


def test_the_same_images_have_the_same_name_and_others_another(tmp_path):
    place = folder(tmp_path)
    first = own.row(own.load(str(place)))
    assert recipes.OWN.fullmatch(first)
    assert own.row(own.load(str(place))) == first
    assert own.row(own.load(str(place), flip=False)) != first
    picture(place / "cat" / "new.png", value=5)
    assert own.row(own.load(str(place))) != first


def test_given_splits_are_kept(tmp_path):
    for part, images in {"train": 12, "val": 3, "test": 4}.items():
        folder(tmp_path, images=images).rename(tmp_path / part)
    for part in ("train", "val", "test"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / part).rename(tmp_path / "all" / part)
    data = own.load(str(tmp_path / "all"))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [24, 6, 8]


@pytest.mark.parametrize(
    ("size", "asked", "wanted"), [((200, 90), 0, 64), ((30, 24), 0, 24), ((20, 20), 32, 32), ((9, 9), 0, 16)]
)
def test_sizes(tmp_path, size, asked, wanted):
    data = own.load(str(folder(tmp_path, size=size)), image_size=asked)
    assert data.train.dataset.image_shape == (1, wanted, wanted)


def test_mixed_sizes_and_colours_become_alike(tmp_path):
    place = folder(tmp_path)
    picture(place / "cat" / "wide.jpg", size=(60, 30), mode="RGB")
    assert own.load(str(place)).train.dataset.image_shape[0] == 3


def test_what_cannot_be_used_is_refused_in_words(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        own.load(str(tmp_path / "nowhere"))
    place = folder(tmp_path, classes=("cat",))
    with pytest.raises(DataError, match=r"only the class 'cat': put the images of each class into a folder of its own"):
        own.load(str(place))
    folder(tmp_path, classes=("cat", "dog"), images=3)
    with pytest.raises(DataError, match=r"too few images .'dog' 3.: 5 per class are the least"):
        own.load(str(place))
    folder(tmp_path)
    with pytest.raises(DataError, match=r"image_size 5 is not 0 or a number of pixels from 16 to 1024"):
        own.load(str(place), image_size=5)
    (place / "dog" / "bad.png").write_bytes((place / "dog" / "0.png").read_bytes()[:80])
    (place / "cat" / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"cannot be read: cat/text.jpg \(.*repair or remove them"):
        own.load(str(place))
    (place / "cat" / "text.jpg").unlink()
    with pytest.raises(DataError, match=r"dog/bad.png \("):
        own.load(str(place))


def test_more_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(own.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000})())
    with pytest.raises(DataError, match=r"20 images of 20x20 pixels take 0.0 GB, and 0.0 GB of memory are free"):
        own.load(str(folder(tmp_path)))


def test_nothing_is_left_out_silently(tmp_path):
    place = folder(tmp_path)
    (place / "bird").mkdir()
    with pytest.raises(DataError, match=r"no images in bird: a folder there is a class; fill it or remove it"):
        own.load(str(place))
    (place / "bird" / "1.HEIC").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 images cannot be read, e.g. bird/1.HEIC: convert them to JPEG or PNG"):
        own.load(str(place))


def test_sixteen_bits_are_refused(tmp_path):
    place = folder(tmp_path)
    Image.fromarray(np.zeros((20, 20), dtype=np.uint16)).save(place / "cat" / "deep.png")
    with pytest.raises(DataError, match=r"cat/deep.png .mode I;16, more than 8 bits a channel"):
        own.load(str(place))


def test_example(tmp_path):
    place = own.example(tmp_path / "example_shapes")
    assert len(list(place.iterdir())) == 10
    data = own.load(str(place))
    recipe = recipes.resolve(own.row(data), "odn", "smoke", "equal")
    assert recipe.embedded
    assert not recipes.resolve("own_photos_01234567", "odn", "quick", "equal").embedded


def test_images_outside_class_folders_are_not_left_out_silently(tmp_path):
    place = folder(tmp_path)
    picture(place / ".thumbs" / "0.png")
    assert own.load(str(place)).train.dataset.class_names == ("cat", "dog")
    picture(place / "cat" / "2020" / "deep.png")
    with pytest.raises(DataError, match=r"1 images lie elsewhere than in class folders, e.g. cat/2020/deep.png"):
        own.load(str(place))


def test_transparency_is_white(tmp_path):
    place = folder(tmp_path, mode="RGB")
    for path in place.glob("*/*.png"):
        Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(path)
    data = own.load(str(place))
    assert (data.train.images == 255).all()


def test_the_readmes_snippet_prepares_an_image_as_training_did(tmp_path):
    """Up to the call of onnxruntime, which test_export.py makes."""
    blocks = [part.split("```")[0] for part in (ROOT / "README.md").read_text().split("```python\n")[1:]]
    code = next(block for block in blocks if "onnxruntime" in block)
    lines = [line for line in code.splitlines() if line.startswith(("import numpy", "from PIL", "image =", "pixels ="))]
    picture(tmp_path / "pets" / "cat" / "0.png", size=(90, 50), value=7)
    expected = pictures.pixels([tmp_path / "pets" / "cat" / "0.png"], 24, 1, str(tmp_path / "pets"))
    known = {"height": 24, "width": 24, "channels": 1}
    source = "\n".join(lines).replace('"1.jpg"', repr(str(tmp_path / "pets" / "cat" / "0.png")))
    exec(source.replace(", onnxruntime", ""), known)
    np.testing.assert_array_equal(known["pixels"][0].transpose(2, 0, 1), expected[0])


def test_own_images_are_not_trained_for_the_few_epochs_of_large_datasets():
    own_images, emnist = (recipes.resolve(row, profile="quick") for row in ("own_photos_01234567", "emnist"))
    assert (own_images.depth_epochs, emnist.depth_epochs) == (16, 8)


def test_fewer_own_images_are_not_a_setting():
    with pytest.raises(recipes.RecipeError, match="own images are all used"):
        recipes.resolve("own_photos_01234567", "odn", "quick", "equal", train_images=5)
