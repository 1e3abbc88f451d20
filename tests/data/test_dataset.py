"""From configuration to splits: validation, normalisation, fingerprint, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kdrun.config import trust
from kdrun.config.schema import AugmentConfig, DatasetConfig
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.groups import GroupError
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import EvalLoader, TrainLoader
from kdrun.errors import ConfigError, DataError

HERE = "kdrun_test_sources"


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """source(value or function) → the configuration of a data set whose source returns it."""
    import sys
    import types

    module = types.ModuleType(HERE)
    monkeypatch.setitem(sys.modules, HERE, module)
    trust.name([f"{HERE}.load"])

    def config(value: Any, **changes: Any) -> DatasetConfig:
        module.load = value if callable(value) else lambda: value  # type: ignore[attr-defined]
        return DatasetConfig("mine", f"{HERE}.load", **changes)

    return config


def part(count: int = 20, classes: int = 2, seed: int = 0, channels: int = 3) -> Split:
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, 5, 4), generator=stream).to(torch.uint8)
    return Split(images, torch.arange(count) % classes)


def opened(config: DatasetConfig, val_fraction: float = 0.0) -> Dataset:
    return open_dataset(config, val_fraction, Path("unused"))


def test_digits_from_end_to_end() -> None:
    data = opened(DatasetConfig("digits", "kdrun.data.sources.digits"), 0.1)
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (1293, 145, 359)
    assert data.info.num_classes == 10
    assert data.info.in_channels == 1
    assert data.info.image_size == (8, 8)
    batch = next(iter(EvalLoader(data.test, data.normalisation, 64, "cpu")))
    assert batch.images.shape == (64, 1, 8, 8)


def test_validation_images_leave_the_training_images(source: Any) -> None:
    config = source({"train": part(), "test": part(6)})
    whole, divided = opened(config), opened(config, 0.2)
    assert whole.val is None
    assert divided.val is not None
    assert (len(divided.train), len(divided.val), len(divided.test)) == (16, 4, 6)
    assert torch.equal(divided.train.in_memory(), part().in_memory()[divided.train_index])
    left = sorted(set(range(20)) - set(divided.train_index.tolist()))
    assert torch.equal(divided.val.in_memory(), part().in_memory()[left])
    assert torch.equal(whole.train_index, torch.arange(20))


def test_split_seed_chooses_the_validation_images(source: Any) -> None:
    value = {"train": part(100), "test": part(6)}
    first, again, other = (
        opened(source(value, split_seed=seed), 0.2).train_index for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_sources_own_validation_images_are_used(source: Any) -> None:
    config = source({"train": part(), "val": part(4, seed=7), "test": part(6)})
    data = opened(config, 0.3)
    assert data.val is not None
    assert torch.equal(data.val.in_memory(), part(4, seed=7).in_memory())
    assert len(data.train) == 20
    assert opened(config).val is None


def test_test_images_are_held_out_where_there_are_none(source: Any) -> None:
    data = opened(source({"train": part(50)}), 0.1)
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 10)
    assert "20%" in data.notes[0]


def test_the_fingerprint_depends_on_the_source_alone(source: Any) -> None:
    value = {"train": part(), "test": part(6)}
    first = opened(source(value)).fingerprint
    assert len(first) == 64
    for config, fraction in (
        (source(value, resident="false"), 0.0),
        (source(value, split_seed=4), 0.3),
        (source(value, mean=[0.5] * 3, std=[0.5] * 3), 0.1),
    ):
        assert opened(config, fraction).fingerprint == first
    assert opened(source({"train": part(seed=1), "test": part(6)})).fingerprint != first
    assert opened(source({"train": part(), "test": part(6, seed=1)})).fingerprint != first


def test_normalisation_is_given_or_measured_before_the_split(source: Any) -> None:
    value = {"train": part(), "test": part(6)}
    given = opened(source(value, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0])).normalisation
    assert given.mean == (0.1, 0.2, 0.3)
    measured = opened(source(value), 0.3).normalisation
    expected = (part().in_memory().double() / 255).mean((0, 2, 3)).tolist()
    assert measured.mean == pytest.approx(expected)


def test_a_source_is_given_what_it_asks_for(source: Any, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def load(*, size: int, cache_root: Path, split_seed: int, progress: Any) -> Any:
        seen.update(size=size, cache_root=cache_root, split_seed=split_seed, progress=progress)
        return {"train": part(size), "test": part(6)}

    config = source(load, kwargs={"size": 12}, split_seed=9)
    reports: list[Any] = []
    data = open_dataset(config, 0.0, tmp_path, lambda *report: reports.append(report))
    assert len(data.train) == 12
    assert (seen["size"], seen["cache_root"], seen["split_seed"]) == (12, tmp_path, 9)
    assert seen["progress"] is not None
    assert reports


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"train": part(), "test": part(6, channels=1)}, "test images are 1×5×4 uint8 .* 3×5×4"),
        ({"train": part(), "test": part(6, 3)}, "2 test images and no training images: 2"),
        ({"train": part(), "test": part(6, 3), "classes": ["a", "b"]}, "from 0 to 2, .* 2 classes"),
        ({"train": part(), "val": part(6, 3), "classes": ["a", "b", "c"]}, "no training images: c"),
        ({"train": part(classes=1), "test": part(6, 1)}, "1 class; a classifier needs"),
        ({"train": part(), "test": part(0), "classes": ["a", "b"]}, "no test images"),
        ({"train": part(0), "classes": ["a", "b"]}, "no training images"),
    ],
)
def test_splits_that_do_not_fit(source: Any, value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(source(value))


def test_no_validation_from_one_image_per_class(source: Any) -> None:
    with pytest.raises(DataError, match="val_fraction=0"):
        opened(source({"train": part(2), "test": part(2)}), 0.2)


def test_constants_for_other_channels_are_refused(source: Any) -> None:
    config = source({"train": part(), "test": part(6)}, mean=[0.5], std=[0.5])
    with pytest.raises(ConfigError, match=r"dataset\.mean has 1 values, .* 3 channels"):
        opened(config)


def test_constants_of_pixels_up_to_255_are_refused(source: Any) -> None:
    config = source({"train": part(), "test": part(6)}, mean=[125.0] * 3, std=[60.0] * 3)
    with pytest.raises(ConfigError, match=r"dataset\.mean=.* divide dataset\.mean and"):
        opened(config)


def test_a_misspelt_argument_is_named() -> None:
    config = DatasetConfig("digits", "kdrun.data.sources.digits", {"test_fracton": 0.1})
    with pytest.raises(ConfigError, match=r"test_fracton does not exist. Did you mean"):
        opened(config)


def test_an_image_folder_is_split_without_reading_it(tree: Path, tmp_path: Path) -> None:
    config = DatasetConfig("set", "kdrun.data.imagefolder.imagefolder", {"root": str(tree)})
    data = open_dataset(config, 0.34, tmp_path / "cache")
    assert data.val is not None
    assert not isinstance(data.train.images, torch.Tensor)
    assert (len(data.train), len(data.val), len(data.test)) == (4, 2, 4)
    kept, streamed = (
        TrainLoader(data.train, data.normalisation, 3, AugmentConfig(), 0, "cpu", resident=keep)
        for keep in (True, False)
    )
    for left, right in zip(kept.epoch(0), streamed.epoch(0), strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.targets, right.targets)


def test_groups_must_fit_the_images_and_share_a_label(source: Any) -> None:
    def grouped(index: torch.Tensor) -> Split:
        whole = part(20)
        return Split(whole.images, whole.targets, index, (GroupError("word", index),))

    data = opened(source({"train": grouped(torch.arange(20) % 10), "test": part(6)}), 0.2)
    assert data.train.groups is not None
    (metric,) = data.train.extra_metrics
    assert isinstance(metric, GroupError)
    assert torch.equal(metric.index, data.train.groups)
    with pytest.raises(DataError, match="must have the same label"):
        opened(source({"train": grouped(torch.arange(20) // 2), "test": part(6)}))
    with pytest.raises(DataError, match="one whole number per image"):
        opened(source({"train": grouped(torch.arange(7)), "test": part(6)}))
