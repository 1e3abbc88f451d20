"""Labels of arrays: what is accepted, what stops, and what dataset.num_classes decides."""

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from kdrun.config import trust
from kdrun.config.schema import DatasetConfig
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.images import RawDataset, Split
from kdrun.errors import ConfigError, DataError

HERE = "kdrun_test_labels"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """opened({split: labels}, **settings) → the data set of arrays with these labels."""
    module = types.ModuleType(HERE)
    monkeypatch.setitem(sys.modules, HERE, module)
    trust.name([f"{HERE}.load"])

    def open_it(
        labels: dict[str, Any], classes: Any = None, val_fraction: float = 0.0, **settings: Any
    ) -> Dataset:
        parts: dict[str, Any] = {
            split: (np.random.default_rng(seed).integers(0, 256, (len(values), 4, 4)), values)
            for seed, (split, values) in enumerate(labels.items())
        }
        if classes is not None:
            parts["classes"] = classes
        module.load = lambda: parts  # type: ignore[attr-defined]
        config = DatasetConfig("mine", f"{HERE}.load", settings)
        return open_dataset(config, val_fraction, tmp_path)

    return open_it


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(1, 11), r"from 1 to 10: subtract 1 .*dataset\.num_classes=11"),
        ([5, 6, 7], r"from 5 to 7: subtract 5 .*dataset\.num_classes=8"),
        ([0, 1, 3], r"3 different labels from 0 to 3; none is 2: .*dataset\.num_classes=4"),
        ([0, 10, 20], r"none is 1, 2, 3, 4, 5 and 13 more"),
        ([-1, 0, 1], "the label -1: number the classes from 0"),
        (np.array([0.0, 1.0, 2.0]), r"float64 .*targets\.astype\(int\)"),
        (np.array([0.0, np.nan]), "float64 .*not whole numbers"),
        (np.eye(3), r"one-hot, give targets\.argmax\(1\)"),
        (np.eye(3, dtype=bool), r"one-hot"),
        (np.array([[0, 1], [1, 1]]), "one label per image"),
        ([[0], [1]], r"targets\[:, 0\]"),
        ([[0], [1, 2]], "differ in length"),
        (["cat", "dog"], r"numpy\.unique"),
        (np.array([b"cat", b"dog"]), r"numpy\.unique"),
        (np.array(["cat", "dog"], object), r"numpy\.unique"),
        (np.array([0, 1], object), r"object .*targets\.astype\(int\)"),
        (np.array([True, False]), r"bool .*dataset\.num_classes=2"),
        (np.array([0, 2**40]), "not a class number"),
        (np.array([0, 2**63], np.uint64), "not a class number"),
        (np.array([0j, 1]), "whole numbers"),
        ([None, None], r"object"),
    ],
)
def test_labels_that_leave_something_open(opened: Any, labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened({"train": labels, "test": labels})


@pytest.mark.parametrize(
    "labels", [[0, 1, 2], np.array([2, 1, 0], np.uint8), torch.tensor([0, 1, 2], dtype=torch.int32)]
)
def test_whole_numbers_from_0_are_accepted(opened: Any, labels: Any) -> None:
    found = opened({"train": labels, "test": labels})
    assert found.classes == ("0", "1", "2")
    assert found.train.targets.tolist() == [int(one) for one in labels]
    assert found.notes == ()


def test_num_classes_says_that_unused_numbers_are_classes(opened: Any) -> None:
    found = opened({"train": [1, 2, 3], "test": [1, 2]}, num_classes=4)
    assert found.classes == ("0", "1", "2", "3")
    assert found.train.targets.tolist() == [1, 2, 3]
    assert found.notes == (
        "No training images of 1 of 4 classes: 0.",
        "No test images of 2 of 4 classes: 0, 3.",
    )


def test_the_remedies_work(opened: Any) -> None:
    labels = np.array([1, 3, 7])
    classes, numbers = np.unique(labels, return_inverse=True)
    assert opened({"train": numbers, "test": numbers}, classes).classes == ("1", "3", "7")
    assert opened({"train": labels, "test": labels}, num_classes=8).classes[-1] == "7"
    assert opened({"train": np.array([True, False] * 2)}, num_classes=2).classes == ("0", "1")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (10, r"from 1 to 10, and dataset\.num_classes=10 allows 0 to 9: subtract 1"),
        (5, r"allows 0 to 4\."),
        (1, "must be a whole number, at least 2"),
        ("x", "must be a whole number"),
        (True, "must be a whole number"),
    ],
)
def test_num_classes_that_does_not_fit(opened: Any, value: Any, words: str) -> None:
    labels = np.arange(1, 11)
    with pytest.raises((DataError, ConfigError), match=words):
        opened({"train": labels, "test": labels}, num_classes=value)


def test_num_classes_does_not_contradict_names(opened: Any) -> None:
    labels = {"train": [0, 1], "test": [0, 1]}
    assert opened(labels, ["a", "b"], num_classes=2).classes == ("a", "b")
    with pytest.raises(DataError, match=r"num_classes=3, but mine has 2 classes"):
        opened(labels, ["a", "b"], num_classes=3)


def test_names_as_labels_where_classes_lists_them(opened: Any) -> None:
    found = opened({"train": ["dog", "cat"], "test": np.array([b"cat"])}, ["dog", "cat"])
    assert found.train.targets.tolist() == [0, 1]
    assert found.test.targets.tolist() == [1]
    with pytest.raises(DataError, match="does not list: emu"):
        opened({"train": ["dog", "cat", "emu"]}, ["dog", "cat"])
    with pytest.raises(DataError, match="'classes' lists a twice"):
        opened({"train": [0, 1]}, ["a", "a"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_only_outside_of_training_is_an_error(opened: Any, split: str) -> None:
    labels = {"train": [0, 1, 3, 3], split: [0, 2, 2]}
    with pytest.raises(
        DataError, match=r"1 class with 2 \w+ images and no training images: 2\. Add"
    ):
        opened(labels, list("0123"))
    assert opened({**labels, split: [0]}, list("0123")).notes  # the second remedy
    assert opened({**labels, "train": [0, 1, 2, 3, 3]}, list("0123")).notes  # the first one


def test_classes_without_held_out_images_are_noted(opened: Any) -> None:
    found = opened({"train": [0, 1, 2] * 4 + [3], "test": [0, 1, 3]}, val_fraction=0.25)
    assert found.notes == (
        "No validation images of 1 of 4 classes: 3.",
        "No test images of 1 of 4 classes: 2.",
    )


def test_no_images_at_all(opened: Any) -> None:
    with pytest.raises(DataError, match="has no images"):
        opened({"train": np.zeros(0, int), "test": np.zeros(0, int)})


@pytest.mark.parametrize(
    "targets", [torch.zeros(2), torch.zeros(2, 1).long(), torch.zeros(3).long()]
)
def test_data_sets_of_a_source_are_checked_too(
    targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    module = types.ModuleType(HERE)
    raw = RawDataset(("a", "b"), Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), targets))
    module.load = lambda: raw  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, HERE, module)
    trust.name([f"{HERE}.load"])
    with pytest.raises(DataError, match=r"mine: the training targets are .* for 2 images"):
        open_dataset(DatasetConfig("mine", f"{HERE}.load"), 0.0, tmp_path)
