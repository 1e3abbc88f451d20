"""Published data sets as folders of images: their own numbering, and nothing that is not theirs."""

import dataclasses
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdrun.data import class_folders, idx, torchvision_sets
from kdrun.data.class_folders import PUBLISHED, Published
from kdrun.data.images import RawDataset
from kdrun.errors import AbsentDataError, DataError

Make = Callable[..., Path]
SOURCES: dict[str, Callable[..., RawDataset]] = {
    "cifar10": torchvision_sets.cifar10,
    "cifar100": torchvision_sets.cifar100,
    "stl10": torchvision_sets.stl10,
    "svhn": torchvision_sets.svhn,
    "mnist": idx.mnist,
    "fashion_mnist": idx.fashion_mnist,
    "dtd": torchvision_sets.dtd,
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(key) writes the data set with two images of each class in each split; its folder."""
    monkeypatch.setattr(idx, "DEBIAN_FASHION", tmp_path / "none")

    def write(key: str, names: dict[str, str] | None = None) -> Path:
        published = PUBLISHED[key]
        few = {split: (2,) * len(published.classes) for split in published.counts}
        monkeypatch.setitem(PUBLISHED, key, dataclasses.replace(published, counts=few))
        folder = tmp_path / "set"
        for split in published.counts:
            for number, name in enumerate(published.classes):
                place = folder / split / (names or {}).get(name, name.replace("/", "_"))
                place.mkdir(parents=True)
                for image in range(2):
                    _save(place / f"{image}.png", published, number, image)
        return folder

    return write


def _save(path: Path, published: Published, number: int, image: int) -> None:
    """An image whose first pixel is the class number and whose second is its own number."""
    height, width = published.size or (30, 40 + image)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[0, 0], pixels[0, 1] = number, image
    plain = Image.fromarray(pixels)
    (plain.convert("L") if published.channels == 1 else plain).save(path)


def read(key: str, root: Path) -> RawDataset:
    return SOURCES[key](root=str(root), download=False, cache_root=root.parent / "cache")


@pytest.mark.parametrize("key", PUBLISHED)
def test_images_have_the_published_numbers(make: Make, key: str) -> None:
    folder = make(key)
    published = PUBLISHED[key]
    raw = read(key, folder)
    assert raw.classes == published.classes
    assert raw.notes[0] == f"{published.name} is read from class folders: {folder}."
    assert raw.test is not None
    assert (raw.val is not None) == (key == "dtd")
    size = published.size or (224, 224)
    assert raw.train.shape == (published.channels, *size)
    assert raw.train.targets.tolist() == [n for n in range(len(raw.classes)) for _ in range(2)]
    if published.size is not None:
        assert raw.train.in_memory()[:, 0, 0, 0].tolist() == raw.train.targets.tolist()
        assert raw.test.in_memory()[:, 0, 0, 0].tolist() == raw.test.targets.tolist()


def test_a_folder_of_the_name_is_found_below_the_root(make: Make) -> None:
    folder = make("cifar10")
    root = folder.parent / "data"
    root.mkdir()
    folder.rename(root / "cifar10")
    assert len(read("cifar10", root).train) == 20


@pytest.mark.parametrize("names", ["numbers", "other case and spaces"])
def test_fashion_mnist_folders_by_number_or_name(make: Make, names: str) -> None:
    classes = PUBLISHED["fashion_mnist"].classes
    given = {name: str(number) for number, name in enumerate(classes)}
    if names != "numbers":
        given = {name: name.title().replace(" ", "_").replace("/", "-") for name in classes}
    raw = read("fashion_mnist", make("fashion_mnist", given))
    assert raw.classes == classes
    assert raw.train.in_memory()[:, 0, 0, 0].tolist() == raw.train.targets.tolist()


def _one_missing(folder: Path) -> None:
    (folder / "train" / "cat" / "1.png").unlink()


def _one_more(folder: Path) -> None:
    shutil.copy(folder / "test" / "cat" / "1.png", folder / "test" / "cat" / "2.png")


def _moved(folder: Path) -> None:
    (folder / "train" / "cat" / "1.png").rename(folder / "train" / "dog" / "9.png")


def _renamed(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / "tiger")


def _removed(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "cat")


def _numbered(folder: Path) -> None:
    for split in ("train", "test"):
        for number, name in enumerate(PUBLISHED["cifar10"].classes):
            (folder / split / name).rename(folder / split / str(number))


def _no_test(folder: Path) -> None:
    shutil.rmtree(folder / "test")


def _one_tree(folder: Path) -> None:
    for place in (folder / "train").iterdir():
        place.rename(folder / place.name)
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "test")


def _three_splits(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "val")


def _one_size(folder: Path) -> None:
    path = folder / "train" / "cat" / "1.png"
    Image.open(path).resize((64, 64)).save(path)


def _all_sizes(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).resize((28, 28)).save(path)


WRONG = {
    _one_missing: "the train split has 19 images, not 20; cat has 1 train images, not 2",
    _one_more: "the test split has 21 images, not 20; cat has 3 test images, not 2",
    _moved: "cat has 1 train images, not 2, and 1 other class differs",
    _renamed: "its classes include tiger and its classes lack cat",
    _removed: "its classes lack cat",
    _numbered: "its classes include 0, 1, 2, 3, 4 and 5 more",
    _no_test: "its splits are train, not train, test",
    _one_tree: "its splits are train, not train, test",
    _three_splits: "its splits are train, val, test, not train, test",
    _one_size: "the images are of different sizes, not 32×32",
    _all_sizes: "the images are 28×28, not 32×32",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_another_data_set_is_refused(make: Make, change: Callable[[Path], None]) -> None:
    folder = make("cifar10")
    change(folder)
    with pytest.raises(DataError, match=f"is not CIFAR-10: {WRONG[change]}") as caught:
        read("cifar10", folder)
    assert f"dataset=imagefolder dataset.root={folder}" in str(caught.value)


@pytest.mark.parametrize("key", list(SOURCES))
def test_pixel_settings_reach_class_folders(make: Make, key: str, tmp_path: Path) -> None:
    folder = make(key)
    channels = PUBLISHED[key].channels
    for path in folder.rglob("*.png"):
        size = Image.open(path).size
        Image.new("LA" if channels == 1 else "RGBA", size, 0).save(path)
    source = SOURCES[key]
    black = source(root=str(folder), download=False, cache_root=tmp_path, background="black")
    white = source(root=str(folder), download=False, cache_root=tmp_path)
    assert int(black.train.in_memory().max()) == 0
    assert int(white.train.in_memory().min()) == 255


def test_broken_images_of_class_folders_can_be_skipped(make: Make, tmp_path: Path) -> None:
    folder = make("dtd")
    (folder / "train" / "woven" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"dataset\.skip_broken=true"):
        torchvision_sets.dtd(root=str(folder), download=False, cache_root=tmp_path)
    raw = torchvision_sets.dtd(
        root=str(folder), download=False, cache_root=tmp_path, skip_broken=True
    )
    assert len(raw.train) == 93


def test_folders_of_other_things_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "set" / "notes").mkdir(parents=True)
    with pytest.raises(AbsentDataError, match=r"dataset\.root"):
        read("cifar10", tmp_path / "set")


def test_the_files_of_dtd_are_found_as_they_are_unpacked(tmp_path: Path) -> None:
    base = tmp_path / "unpacked"
    for split in ("train", "val", "test"):
        (base / "labels").mkdir(parents=True, exist_ok=True)
        (base / "labels" / f"{split}1.txt").write_text(f"banded/{split}.jpg\nwoven/{split}.jpg\n")
        for number, name in enumerate(("banded", "woven")):
            (base / "images" / name).mkdir(parents=True, exist_ok=True)
            _save(base / "images" / name / f"{split}.jpg", PUBLISHED["dtd"], number, 0)
    raw = read("dtd", base)
    assert raw.classes == ("banded", "woven")
    assert len(raw.train) == 2


def test_published_counts_are_the_known_totals() -> None:
    totals = {
        key: tuple(sum(counts) for counts in published.counts.values())
        for key, published in class_folders.PUBLISHED.items()
    }
    assert totals == {
        "cifar10": (50_000, 10_000),
        "cifar100": (50_000, 10_000),
        "stl10": (5_000, 8_000),
        "svhn": (73_257, 26_032),
        "mnist": (60_000, 10_000),
        "fashion_mnist": (60_000, 10_000),
        "dtd": (1_880, 1_880, 1_880),
    }
    for key, published in PUBLISHED.items():
        for counts in published.counts.values():
            assert len(counts) == len(published.classes), key
    assert len(PUBLISHED["cifar100"].classes) == 100
    assert list(PUBLISHED["cifar100"].classes) == sorted(PUBLISHED["cifar100"].classes)


@pytest.mark.parametrize(("key", "other"), [("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")])
def test_idx_files_of_the_other_data_set_are_refused(key: str, other: str, tmp_path: Path) -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), PUBLISHED[other].counts["train"])
    for name, header, content in (
        ("train-images-idx3-ubyte", (2051, 60_000, 1, 1), labels),
        ("train-labels-idx1-ubyte", (2049, 60_000), labels),
        ("t10k-images-idx3-ubyte", (2051, 10, 1, 1), labels[:10]),
        ("t10k-labels-idx1-ubyte", (2049, 10), labels[:10]),
    ):
        start = struct.pack(f">{len(header)}I", *header)
        (tmp_path / name).write_bytes(start + content.tobytes())
    assert len(read(other, tmp_path).train) == 60_000
    with pytest.raises(DataError, match=f"holds {PUBLISHED[other].name}, not .*dataset={other}"):
        read(key, tmp_path)


@pytest.mark.heavy
@pytest.mark.needs_data
def test_cifar100_as_png(data_dir: Path, tmp_path: Path) -> None:
    raw = torchvision_sets.cifar100(
        root=str(data_dir / "cifar100"), download=False, cache_root=tmp_path
    )
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (50_000, 10_000)
    assert raw.classes[:2] == ("apple", "aquarium_fish")
    assert raw.normalisation is not None
    assert raw.normalisation.mean == pytest.approx((0.50708, 0.48655, 0.44092), abs=1e-5)
    assert raw.normalisation.std == pytest.approx((0.26733, 0.25644, 0.27615), abs=1e-5)


@pytest.mark.needs_data
def test_mnist_counts_are_those_of_the_original_files(data_dir: Path) -> None:
    raw = idx.mnist(root=str(data_dir), download=False)
    assert raw.test is not None
    for name, split in (("train", raw.train), ("test", raw.test)):
        assert tuple(split.targets.bincount().tolist()) == PUBLISHED["mnist"].counts[name]
