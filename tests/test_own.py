"""Own images: what is read, what is refused, and how it is split."""

import numpy as np
import pytest
import torch
from PIL import Image

from odnlib import ROOT, own, pictures, recipes
from odnlib.data import DataError


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
    data = own.load(str(folder(tmp_path, images=20)), tmp_path)
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
    first = own.row(own.load(str(place), tmp_path))
    assert recipes.OWN.fullmatch(first)
    assert own.row(own.load(str(place), tmp_path)) == first
    assert own.row(own.load(str(place), tmp_path, flip=False)) != first
    picture(place / "cat" / "new.png", value=5)
    assert own.row(own.load(str(place), tmp_path)) != first


def test_given_splits_are_kept(tmp_path):
    for part, images in {"train": 12, "val": 3, "test": 4}.items():
        folder(tmp_path, images=images).rename(tmp_path / part)
    for part in ("train", "val", "test"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / part).rename(tmp_path / "all" / part)
    data = own.load(str(tmp_path / "all"), tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [24, 6, 8]


@pytest.mark.parametrize(
    ("size", "asked", "wanted"), [((200, 90), 0, 64), ((30, 24), 0, 24), ((20, 20), 32, 32), ((9, 9), 0, 16)]
)
def test_sizes(tmp_path, size, asked, wanted):
    data = own.load(str(folder(tmp_path, size=size)), tmp_path, image_size=asked)
    assert data.train.dataset.image_shape == (1, wanted, wanted)


def test_mixed_sizes_and_colours_become_alike(tmp_path):
    place = folder(tmp_path)
    picture(place / "cat" / "wide.jpg", size=(60, 30), mode="RGB")
    assert own.load(str(place), tmp_path).train.dataset.image_shape[0] == 3


def test_what_cannot_be_used_is_refused_in_words(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere, and no such class in torchvision.datasets"):
        own.load(str(tmp_path / "nowhere"), tmp_path)
    place = folder(tmp_path, classes=("cat",))
    with pytest.raises(DataError, match=r"only the class 'cat': put the images of each class into a folder of its own"):
        own.load(str(place), tmp_path)
    folder(tmp_path, classes=("cat", "dog"), images=3)
    with pytest.raises(DataError, match=r"too few images .'dog' 3.: 5 per class are the least"):
        own.load(str(place), tmp_path)
    folder(tmp_path)
    with pytest.raises(DataError, match=r"image_size 5 is not 0 or a number of pixels from 16 to 1024"):
        own.load(str(place), tmp_path, image_size=5)
    (place / "dog" / "bad.png").write_bytes((place / "dog" / "0.png").read_bytes()[:80])
    (place / "cat" / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"cannot be read: cat/text.jpg \(.*repair or remove them"):
        own.load(str(place), tmp_path)
    (place / "cat" / "text.jpg").unlink()
    with pytest.raises(DataError, match=r"dog/bad.png \("):
        own.load(str(place), tmp_path)


def test_more_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(own.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000})())
    with pytest.raises(DataError, match=r"20 images of 20x20 pixels take 0.0 GB, and 0.0 GB of memory are free"):
        own.load(str(folder(tmp_path)), tmp_path)


def test_nothing_is_left_out_silently(tmp_path):
    place = folder(tmp_path)
    (place / "bird").mkdir()
    with pytest.raises(DataError, match=r"no images in bird: a folder there is a class; fill it or remove it"):
        own.load(str(place), tmp_path)
    (place / "bird" / "1.HEIC").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 images cannot be read, e.g. bird/1.HEIC: convert them to JPEG or PNG"):
        own.load(str(place), tmp_path)


def test_sixteen_bits_are_refused(tmp_path):
    place = folder(tmp_path)
    Image.fromarray(np.zeros((20, 20), dtype=np.uint16)).save(place / "cat" / "deep.png")
    with pytest.raises(DataError, match=r"cat/deep.png .mode I;16, more than 8 bits a channel"):
        own.load(str(place), tmp_path)


def test_a_dataset_of_torchvision_by_name(tmp_path, monkeypatch):
    import torchvision.datasets

    class Tiny:
        classes = ("zero", "one")

        def __init__(self, root, train=True, download=False):
            self.train = train

        def __getitem__(self, i):
            if i >= 12:
                raise IndexError
            return Image.new("RGB", (32, 32), (10 * i, 99 * self.train, 0)), i % 2

        def __len__(self):
            return 12

    monkeypatch.setattr(torchvision.datasets, "Tiny", Tiny, raising=False)
    data = own.load("Tiny", tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 2, 12]
    with pytest.raises(DataError, match=r"save its images into a folder per class"):
        own.load("FakeData", tmp_path)
    monkeypatch.setattr(Tiny, "__getitem__", lambda self, i: [])
    with pytest.raises(DataError, match=r"Tiny of torchvision.datasets could not be had"):
        own.load("Tiny", tmp_path)


def test_example(tmp_path):
    place = own.example(tmp_path / "example_shapes")
    assert len(list(place.iterdir())) == 10
    data = own.load(str(place), tmp_path)
    recipe = recipes.resolve(own.row(data), "odn", "smoke", "fast")
    assert recipe.embedded
    assert not recipes.resolve("own_photos_01234567", "odn", "quick", "fast").embedded


def test_images_outside_class_folders_are_not_left_out_silently(tmp_path):
    place = folder(tmp_path)
    picture(place / ".thumbs" / "0.png")
    assert own.load(str(place), tmp_path).train.dataset.class_names == ("cat", "dog")
    picture(place / "cat" / "2020" / "deep.png")
    with pytest.raises(DataError, match=r"1 images lie elsewhere than in class folders, e.g. cat/2020/deep.png"):
        own.load(str(place), tmp_path)


def test_transparency_is_white(tmp_path):
    place = folder(tmp_path, mode="RGB")
    for path in place.glob("*/*.png"):
        Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(path)
    data = own.load(str(place), tmp_path)
    assert (data.train.images == 255).all()


def test_the_readmes_snippet_prepares_an_image_as_training_did(tmp_path):
    """Up to the call of onnxruntime, which test_export.py makes."""
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    lines = [line for line in code.splitlines() if line.startswith(("import numpy", "from PIL", "image =", "pixels ="))]
    picture(tmp_path / "pets" / "cat" / "0.png", size=(90, 50), value=7)
    expected = pictures.pixels([tmp_path / "pets" / "cat" / "0.png"], 24, 1, str(tmp_path / "pets"))
    known = {"height": 24, "width": 24, "channels": 1}
    source = "\n".join(lines).replace('"1.jpg"', repr(str(tmp_path / "pets" / "cat" / "0.png")))
    exec(source.replace(", onnxruntime", ""), known)
    np.testing.assert_array_equal(known["pixels"][0].transpose(2, 0, 1), expected[0])


def test_own_images_are_not_trained_for_the_few_epochs_of_quick():
    """1,400 images of CIFAR-10, goal 75 %: depth 6 (11.15 MB) by 6 epochs a depth, depth 3 (1.54 MB) by 16 and 8."""
    own, mnist = (recipes.resolve(row, "odn", "quick", "fast") for row in ("own_photos_01234567", "mnist"))
    assert (own.first_epochs, own.depth_epochs) == (16, 8)
    assert (mnist.first_epochs, mnist.depth_epochs) == (6, 6)


def test_fewer_own_images_are_not_a_setting():
    with pytest.raises(recipes.RecipeError, match="own images are all used"):
        recipes.resolve("own_photos_01234567", "odn", "quick", "fast", train_images=5)
