"""The same image in two splits or under two labels, and images without content."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdrun.config import dump, parse
from kdrun.config.schema import DatasetConfig
from kdrun.data import duplicates
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.degenerate import degenerate_notes
from kdrun.data.images import LazyImages, Split
from kdrun.errors import ConfigError, DataError
from kdrun.ranges import check_settings

CLASSES = ("cat", "dog")


def split(levels: list[int], targets: list[int] | None = None) -> Split:
    """Images of two pixels, `level` and 0."""
    images = torch.zeros(len(levels), 1, 1, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(levels)
    labels = targets if targets is not None else [number % 2 for number in range(len(levels))]
    return Split(images, torch.tensor(labels))


def test_copies_are_counted_in_every_pair_of_splits() -> None:
    splits = {
        "train": split([1, 2, 3, 4, 5, 3]),
        "val": split([7, 2, 9, 11]),
        "test": split([3, 8, 7, 10, 3]),
    }
    found = duplicates.find_duplicates(splits)
    assert found is not None
    assert found.shared("train", "test").tolist() == [2, 5]
    assert found.shared("test", "train").tolist() == [0, 4]
    assert found.shared("val", "test").tolist() == [0]
    assert found.shared("train", "val").tolist() == [1]
    notes = duplicates.report(found, splits, CLASSES)
    assert notes[0] == (
        "2 of 5 test images are also training images: e.g. training image 2 = test image 0; "
        "training image 5 = test image 0."
    )
    assert notes[1].startswith("1 of 5 test images are also validation images")
    assert notes[2].startswith("1 of 4 validation images are also training images")


def test_the_same_image_under_two_labels() -> None:
    splits = {"train": split([1, 1, 2, 2], [0, 1, 1, 1]), "test": split([3, 4])}
    found = duplicates.find_duplicates(splits)
    assert found is not None
    assert duplicates.report(found, splits, CLASSES) == [
        "2 images are copies with different labels: e.g. training image 0 (cat) = training image 1 "
        "(dog)."
    ]


def test_equal_checksums_of_unequal_images_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "checksums", lambda images: [7] * len(images))
    splits = {"train": split([1, 2, 3]), "test": split([2, 4, 2])}
    found = duplicates.find_duplicates(splits)
    assert found is not None
    assert found.shared("train", "test").tolist() == [1]
    assert found.shared("test", "train").tolist() == [0, 2]


def test_drop_never_touches_the_test_images() -> None:
    splits = {"train": split([1, 2, 3, 4, 5, 6]), "val": split([3, 7]), "test": split([7, 1])}
    keep, notes = duplicates.resolve(splits, "drop", CLASSES)
    assert keep["train"].tolist() == [1, 3, 4, 5]
    assert keep["val"].tolist() == [0]
    assert "test" not in keep
    assert "dataset.duplicates=drop: 2 training images left out." in notes
    assert duplicates.resolve(splits, "warn", CLASSES)[0] == {}
    with pytest.raises(DataError, match=r"1 of 2 test images are also training .*duplicates=error"):
        duplicates.resolve(splits, "error", CLASSES)


def test_drop_does_not_empty_a_class() -> None:
    splits = {"train": split([1, 2, 3], [0, 1, 0]), "test": split([2, 9])}
    with pytest.raises(DataError, match="leaves no training images of dog"):
        duplicates.resolve(splits, "drop", CLASSES)


def test_nothing_is_said_of_different_images() -> None:
    splits = {"train": split([1, 2]), "test": split([3, 4])}
    for mode in duplicates.DUPLICATES:
        assert duplicates.resolve(splits, mode, CLASSES) == ({}, [])


class Elsewhere(LazyImages):
    """Images without checksums."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.shape = tuple(images.shape)  # type: ignore[assignment]
        self.dtype = images.dtype
        self.read = 0

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        self.read += len(index)
        return self.images[index]


def test_images_without_checksums_are_read_only_when_asked() -> None:
    lazy = [Elsewhere(split(levels).images) for levels in ([1, 2], [2, 3])]  # type: ignore[arg-type]
    splits = {
        name: Split(images, torch.tensor([0, 1]))
        for name, images in zip(("train", "test"), lazy, strict=True)
    }
    assert duplicates.resolve(splits, "warn", CLASSES) == ({}, [])
    assert lazy[0].read == 0
    with pytest.raises(DataError, match="1 of 2 test images"):
        duplicates.resolve(splits, "error", CLASSES)


@pytest.fixture
def opened(tree: Path, tmp_path: Path) -> Callable[..., Dataset]:
    def call(duplicates: str = "warn", **kwargs: Any) -> Dataset:
        config = DatasetConfig(
            "set",
            "kdrun.data.imagefolder.imagefolder",
            {"root": str(tree), **kwargs},
            duplicates=duplicates,
        )
        return open_dataset(config, 0.34, tmp_path / "cache")

    return call


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "streamed"])
def test_copied_files_are_named(opened: Callable[..., Dataset], tree: Path, cache: bool) -> None:
    assert not any("also" in note for note in opened(cache=cache).notes)
    (tree / "test" / "dog" / "copy.png").write_bytes((tree / "train/cat/1.png").read_bytes())
    (tree / "test" / "cat" / "copy.png").write_bytes((tree / "train/cat/2.png").read_bytes())
    before = opened(cache=cache)
    said = [note for note in before.notes if "test images are also" in note]
    assert sum(int(note.split()[0]) for note in said) == 2  # of training or validation images
    assert any(str(tree / "train/cat/1.png") in note for note in said)
    assert all(f"= {tree / 'test'}" in note for note in said)
    (labels,) = [note for note in before.notes if "different labels" in note]
    assert f"{tree / 'train/cat/1.png'} (cat)" in labels
    assert f"{tree / 'test/dog/copy.png'} (dog)" in labels
    after = opened("drop", cache=cache)
    assert (len(before.train), len(after.train)) == (4, 3) or len(after.val or ()) == 1
    assert len(after.test) == len(before.test)
    sums = [
        {zlib.crc32(image.numpy()) for image in part.in_memory()}
        for part in (after.train, after.test)
    ]
    assert not sums[0] & sums[1]
    assert len(after.train_index) == len(after.train)
    with pytest.raises(DataError, match=r"dataset\.duplicates=error"):
        opened("error", cache=cache)


def test_sixty_thousand_images_take_seconds() -> None:
    import time

    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (60_000, 3, 8, 8), dtype=np.uint8)
    )
    splits = {
        "train": Split(images[:50_000], torch.zeros(50_000, dtype=torch.int64)),
        "test": Split(images[49_000:], torch.zeros(11_000, dtype=torch.int64)),
    }
    started = time.process_time()
    found = duplicates.find_duplicates(splits)
    assert time.process_time() - started < 10
    assert found is not None
    assert found.shared("train", "test").tolist() == list(range(49_000, 50_000))


@pytest.mark.parametrize("own_val", [False, True], ids=["held out", "own validation"])
@pytest.mark.parametrize("cache", [True, False], ids=["cached", "streamed"])
def test_dropped_images_count_for_no_mean(
    opened: Callable[..., Dataset], tree: Path, cache: bool, own_val: bool
) -> None:
    if own_val:
        for name in ("cat", "dog"):
            (tree / "val" / name).mkdir(parents=True)
            (tree / "train" / name / "2.png").rename(tree / "val" / name / "2.png")
    without = opened(cache=cache)
    for name in ("cat", "dog"):
        for number in range(2):  # also into what is held out for validation
            copy = tree / "train" / name / f"copy{number}.png"
            copy.write_bytes((tree / "test" / name / f"{number}.png").read_bytes())
    kept = opened(cache=cache)
    assert kept.normalisation != without.normalisation
    dropped = opened("drop", cache=cache)
    assert dropped.normalisation == without.normalisation
    held = 0 if own_val else len(dropped.val or ())
    assert len(dropped.train) + held == (4 if own_val else 6)


def test_the_default_leaves_configurations_as_they_were() -> None:
    config = DatasetConfig("set", "kdrun.data.imagefolder.imagefolder", {"root": "x"})
    plain = dump.dataset_plain(config)
    assert not {"duplicates", "background", "value_range", "skip_broken"} & set(plain)
    said = {"background": "white", "value_range": "auto", "skip_broken": False}
    same = parse.dataset_config({"name": "set", "_target_": config.target, "root": "x", **said})
    assert dump.dataset_plain(same) == plain
    other = DatasetConfig(
        "set", config.target, {"root": "x", "background": "black"}, duplicates="drop"
    )
    changed = dump.dataset_plain(other)
    assert (changed["background"], changed["duplicates"]) == ("black", "drop")
    assert parse.dataset_config(changed) == other
    own = DatasetConfig("set", "mine.load", said)
    assert dump.dataset_plain(own)["background"] == "white"


def test_a_misspelt_rule_is_answered_with_the_right_ones() -> None:
    plain = {"name": "digits", "_target_": "kdrun.data.sources.digits", "duplicates": "drpo"}
    with pytest.raises(ConfigError, match=r"dataset\.duplicates=drpo .*drop"):
        check_settings(parse.dataset_config(plain), lambda key: f"dataset.{key}")


def test_images_without_content_are_hinted_at() -> None:
    black = Split(torch.zeros(300, 1, 4, 4, dtype=torch.uint8), torch.zeros(300))
    flat = Split(
        torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).repeat(1, 1, 4, 4), torch.zeros(40)
    )
    notes = degenerate_notes({"train": black, "val": flat, "test": split([1, 200])})
    assert len(notes) == 2
    assert notes[0].startswith("The train images (256 sampled) are identical")
    assert notes[1].startswith("The val images (all) are nearly constant, at most 0 levels")
    floats = Split(torch.rand(5, 1, 4, 4) * 1e-3, torch.zeros(5))
    assert degenerate_notes({"train": floats}) == []
