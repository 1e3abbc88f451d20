"""The transfer set: which images it holds, and what stays as it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.config.schema import DatasetConfig, TransferConfig
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.images import Split
from kdrun.data.transfer import TransferSet, class_numbers, transfer_set
from kdrun.errors import ConfigError, DataError

KWARGS = {"num_classes": 4, "image_size": [6, 5], "train_size": 100, "test_size": 20}


@pytest.fixture(scope="module")
def data() -> Dataset:
    config = DatasetConfig("synthetic", "kdrun.data.sources.synthetic", KWARGS)
    return open_dataset(config, 0.2, Path("unused"))


def chosen(data: Dataset, cache: Path = Path("unused"), **settings: Any) -> TransferSet:
    return transfer_set(data, TransferConfig(**settings), cache)


def test_by_default_it_is_the_training_images(data: Dataset) -> None:
    found = chosen(data)
    assert found.dataset == data
    assert (found.left_out, found.labelled) == ((), True)


@pytest.mark.parametrize(
    "settings",
    [
        {"exclude_classes": (3,)},
        {"exclude_classes": ("class3",)},
        {"only_classes": (0, "class1", 2)},
    ],
)
def test_classes_are_left_out_by_number_or_name(data: Dataset, settings: dict[str, Any]) -> None:
    found = chosen(data, **settings)
    kept = (data.train.targets != 3).nonzero().flatten()
    assert found.left_out == (3,)
    assert torch.equal(found.dataset.train_index, data.train_index[kept])
    assert torch.equal(found.dataset.train.in_memory(), data.train.in_memory()[kept])
    assert torch.equal(found.dataset.train.targets, data.train.targets[kept])
    assert found.dataset.test is data.test  # measured on every class, as before
    assert found.dataset.val is data.val
    assert found.dataset.normalisation == data.normalisation


def test_a_fraction_is_one_of_each_class_seeded_and_nested(data: Dataset) -> None:
    small, large = chosen(data, fraction=0.1), chosen(data, fraction=0.5)
    assert small.dataset.train.targets.bincount().tolist() == [2, 2, 2, 2]
    assert large.dataset.train.targets.bincount().tolist() == [10, 10, 10, 10]
    ones = set(small.dataset.train_index.tolist())
    assert ones < set(large.dataset.train_index.tolist())
    assert torch.equal(chosen(data, fraction=0.1).dataset.train_index, small.dataset.train_index)
    other = chosen(data, fraction=0.1, seed=1)
    assert ones != set(other.dataset.train_index.tolist())
    few = chosen(data, fraction=0.001)
    assert few.dataset.train.targets.tolist().count(0) == 1
    both = chosen(data, fraction=0.1, exclude_classes=(0,))
    assert set(both.dataset.train_index.tolist()) < ones


def test_a_fraction_of_groups_keeps_groups_whole(data: Dataset) -> None:
    index = torch.arange(80) // 4
    train = Split(data.train.images, index % 4, index)
    found = chosen(replace(data, train=train), fraction=0.4).dataset.train
    assert found.groups is not None
    assert found.groups.bincount().unique().tolist() == [0, 4]
    assert found.targets.bincount().tolist() == [8, 8, 8, 8]  # two of five groups of each class


def test_without_labels_there_are_none_to_be_read(data: Dataset) -> None:
    found = chosen(data, labels=False)
    assert not found.labelled
    assert (found.dataset.train.targets == -1).all()
    assert torch.equal(found.dataset.train.in_memory(), data.train.in_memory())
    assert (data.train.targets >= 0).all()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for number in range(5):
        path = tmp_path / "pictures" / ("a" * (number % 2)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (9 + number, 11, 3)
        Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def test_another_folder_takes_the_form_of_the_data_set(
    data: Dataset, pictures: Path, tmp_path: Path
) -> None:
    found = chosen(data, tmp_path / "cache", folder=str(pictures))
    assert not found.labelled
    assert len(found.dataset.train) == 5
    assert found.dataset.train.shape == data.train.shape == (3, 6, 5)
    assert (found.dataset.train.targets == -1).all()
    assert found.dataset.test is data.test
    assert found.dataset.fingerprint != data.fingerprint  # what is kept of images is kept by it
    again = chosen(data, tmp_path / "cache", folder=str(pictures))
    assert again.dataset.fingerprint == found.dataset.fingerprint
    assert torch.equal(again.dataset.train.in_memory(), found.dataset.train.in_memory())
    assert len(list((tmp_path / "cache").glob("pictures-*"))) == 1
    assert (
        len(chosen(data, tmp_path / "cache", folder=str(pictures), fraction=0.4).dataset.train) == 2
    )


def test_folders_that_cannot_be_used(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"transfer.folder=.*does not exist"):
        chosen(data, folder=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="contains no images"):
        chosen(data, folder=str(tmp_path))
    floats = Split(data.train.in_memory().float(), data.train.targets)
    with pytest.raises(ConfigError, match="holds other data"):
        chosen(replace(data, train=floats), folder=str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"exclude_classes": (9,)}, "no class 9.*The 4 classes are class0"),
        ({"exclude_classes": ("clas2",)}, "Did you mean 'class2'"),
        ({"only_classes": ("x",)}, "transfer.only_classes: there is no class x"),
        ({"exclude_classes": (0, 1, 2, 3)}, "lists every class"),
        ({"only_classes": (0, 1, 2, 3)}, "lists every class"),
    ],
)
def test_classes_that_are_not_there(data: Dataset, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        chosen(data, **settings)


def test_too_few_images_are_refused(data: Dataset) -> None:
    with pytest.raises(DataError, match="has 1 image"):
        chosen(data, fraction=0.001, only_classes=(2,))


@pytest.fixture
def ten(tmp_path: Path) -> Dataset:
    """Two classes of four training and two test images, one of them held out for validation."""
    draw = np.random.default_rng(0)
    for name in [f"{split}/{label}/{n}" for split, count in (("train", 4), ("test", 2))
                 for label in "ab" for n in range(count)]:  # fmt: skip
        path = tmp_path / "ten" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)
    source = "kdrun.data.imagefolder.imagefolder"
    config = DatasetConfig("ten", source, {"root": str(tmp_path / "ten")})
    return open_dataset(config, 0.25, tmp_path / "cache")


def test_held_out_images_in_a_folder_are_counted_refused_or_left_out(
    ten: Dataset, tmp_path: Path
) -> None:
    def of_folder(mode: str) -> Dataset:
        config = TransferConfig(folder=str(tmp_path / "ten"))
        return transfer_set(ten, config, tmp_path / "cache", duplicates=mode).dataset

    found = of_folder("warn")
    assert len(found.train) == 12
    assert any(
        note.startswith("transfer.folder: 4 of 4 test images are also training images: e.g. ")
        for note in found.notes
    )
    assert any("2 of 2 validation images" in note for note in found.notes)
    assert "dataset.duplicates=drop leaves them out" in found.notes[-1]
    with pytest.raises(DataError, match=r"4 of 4 test images.*drop leaves them out"):
        of_folder("error")
    dropped = of_folder("drop")
    assert len(dropped.train) == len(dropped.train_index) == 6
    kept = dropped.train.in_memory()
    assert torch.equal(kept, found.train.in_memory()[dropped.train_index])
    assert torch.equal(kept, ten.train.in_memory())
    assert "6 images left out" in dropped.notes[-1]
    assert dropped.fingerprint != found.fingerprint


def test_a_number_that_may_be_a_padded_name_is_refused() -> None:
    classes = [f"{number:02d}" for number in range(1, 11)]
    assert class_numbers([10, "01"], classes, "x") == {9, 0}
    with pytest.raises(ConfigError, match="x: 1 may be class number 1, which is 02, or the class"):
        class_numbers([1], classes, "x")
    assert class_numbers([1], ["00", "01", "02"], "x") == {1}
    assert class_numbers([0], classes, "x") == {0}


def test_a_name_is_meant_before_a_number() -> None:
    assert class_numbers([7], ["5", "7", "9"], "x") == {1}
    assert class_numbers([2], ["5", "7", "9"], "x") == {2}
