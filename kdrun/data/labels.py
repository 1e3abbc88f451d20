"""Convert labels to class numbers, and check that every class is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdrun.data.images import RawDataset, Split
from kdrun.data.text import abbreviate
from kdrun.errors import DataError


def as_targets(
    value: Any, where: str, classes: Sequence[str] | None, num_classes: int | None = None
) -> Tensor:
    """Labels `[N]` as int64 class numbers.

    Accepts integers, strings listed in `classes`, and bools for two classes. Raises DataError for
    anything else, with the conversion to type.
    """
    count = num_classes if classes is None else len(classes)
    if isinstance(value, Tensor):
        array = value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else np.zeros(1)
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise DataError(
                f"{where} targets differ in length: give one label per image."
            ) from None
    actual = f"{where} targets are {array.dtype} of shape {list(array.shape)}"
    if array.ndim == 1 and array.dtype.kind in "US" and classes is not None:
        return _numbers_from_names(array, where, classes)
    if array.ndim == 1 and array.dtype.kind == "b" and count == 2:
        array = array.astype(np.int64)
    remedy = _remedy(array)
    if remedy is not None:
        raise DataError(
            f"{actual}; expected one whole number per image, [N], counted from 0: {remedy}."
        )
    if array.size and (int(array.max()) > 2**31 or int(array.min()) < -(2**31)):
        raise DataError(f"{where} targets reach {int(array.max())}, which is not a class number.")
    return torch.from_numpy(array.astype(np.int64))


def _remedy(array: np.ndarray) -> str | None:
    """How to convert these labels to whole numbers; None for whole numbers `[N]`."""
    if array.ndim == 2 and array.shape[1] == 1:
        return "give targets[:, 0]"
    if array.ndim == 2 and _one_hot(array):
        return "they look one-hot, give targets.argmax(1)"
    if array.ndim != 1:
        return "give one label per image"
    if array.dtype.kind in "USO" and array.size and isinstance(array.flat[0], str | bytes):
        return (
            "give the position of each name in a list, and that list as 'classes': "
            "classes, targets = numpy.unique(targets, return_inverse=True)"
        )
    if array.dtype.kind == "b":
        return "give targets.astype(int), or set dataset.num_classes=2: False is 0, True is 1"
    if array.dtype.kind == "O":
        return "give targets.astype(int)"
    if array.dtype.kind == "f":
        whole = bool(np.isfinite(array).all()) and bool((array == np.round(array)).all())
        return "give targets.astype(int)" if whole else "they are not whole numbers"
    return None if array.dtype.kind in "iu" else "give whole numbers"


def _one_hot(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf" and bool(
        (((array == 0) | (array == 1)).all(1) & (array.sum(1) == 1)).all()
    )


def _numbers_from_names(array: np.ndarray, where: str, classes: Sequence[str]) -> Tensor:
    number = {name: position for position, name in enumerate(classes)}
    names = [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in array]
    unknown = sorted(set(names) - set(number))
    if unknown:
        raise DataError(f"{where} has labels that 'classes' does not list: {abbreviate(unknown)}.")
    return torch.tensor([number[name] for name in names], dtype=torch.int64)


def numbered_classes(
    parts: dict[str, Split], num_classes: int | None, target: str
) -> tuple[str, ...]:
    """Class names `0`, `1`, … for labels without names.

    num_classes: `dataset.num_classes`; None: labels must be 0, 1, … without gaps.
    Raises DataError if the number of classes is unclear.
    """
    labels = torch.cat([split.targets for split in parts.values()])
    if not len(labels):
        raise DataError(f"{target} returned no images.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise DataError(
            f"{target} returned the label {low}: number the classes from 0, and leave out images "
            "without a label."
        )
    if num_classes is not None:
        if high >= num_classes:
            hint = ": subtract 1" if low == 1 and high == num_classes else ""
            raise DataError(
                f"{target} returned labels from {low} to {high}, and dataset.num_classes="
                f"{num_classes} allows 0 to {num_classes - 1}{hint}."
            )
        return tuple(str(number) for number in range(num_classes))
    distinct = labels.unique()
    if low == 0 and len(distinct) == high + 1:
        return tuple(str(number) for number in range(high + 1))
    if low > 0 and len(distinct) == high - low + 1:
        raise DataError(
            f"{target} returned labels from {low} to {high}: subtract {low} so that they count "
            f"from 0, or set dataset.num_classes={high + 1} if the classes below {low} exist."
        )
    unused = sorted(set(range(min(high, 10_000))) - set(distinct.tolist()))
    raise DataError(
        f"{target} returned {len(distinct)} different labels from {low} to {high}; none is "
        f"{abbreviate([str(number) for number in unused])}: number the classes without gaps "
        "(numpy.unique(targets, return_inverse=True)), or set "
        f"dataset.num_classes={high + 1} if these classes exist."
    )


def check_num_classes(raw: RawDataset, num_classes: int | None, name: str) -> None:
    """Raise DataError if `dataset.num_classes` contradicts the data."""
    if num_classes is not None and num_classes != len(raw.classes):
        raise DataError(
            f"dataset.num_classes={num_classes}, but {name} has {len(raw.classes)} classes: leave "
            "it out."
        )


def check_targets(split: Split, classes: int, where: str) -> None:
    """Raise DataError unless the targets are class numbers, one per image."""
    targets = split.targets
    if targets.dim() != 1 or targets.dtype != torch.int64 or len(targets) != len(split.images):
        raise DataError(
            f"{where} targets are {str(targets.dtype).removeprefix('torch.')} of shape "
            f"{list(targets.shape)} for {len(split.images)} images; expected int64, one number per "
            "image."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        hint = " Subtract 1 from all labels?" if low == 1 and high == classes else ""
        raise DataError(
            f"{where} labels run from {low} to {high}, but there are {classes} classes, numbered "
            f"from 0.{hint}"
        )


def check_classes(raw: RawDataset, name: str) -> None:
    """Raise DataError for classes that have validation or test images only."""
    count = len(raw.classes)
    trained = torch.bincount(raw.train.targets, minlength=count) > 0
    for split, what in ((raw.val, "validation"), (raw.test, "test")):
        if split is None:
            continue
        held = torch.bincount(split.targets, minlength=count) > 0
        only = (held & ~trained).nonzero().flatten().tolist()
        if only:
            names = abbreviate([raw.classes[number] for number in only])
            images = int(sum((split.targets == number).sum() for number in only))
            raise DataError(
                f"{name}: {len(only)} class{'es' * (len(only) > 1)} with {images} {what} images "
                f"and no training images: {names}. Add training images, or leave these "
                f"{what} images out."
            )


def missing_notes(
    classes: Sequence[str], train: Split, val: Split | None, test: Split
) -> list[str]:
    """One sentence per split that lacks images of some classes."""
    notes = []
    for split, what in ((train, "training"), (val, "validation"), (test, "test")):
        if split is None:
            continue
        absent = torch.bincount(split.targets, minlength=len(classes)) == 0
        names = [classes[number] for number in absent.nonzero().flatten().tolist()]
        if names:
            notes.append(
                f"No {what} images of {len(names)} of {len(classes)} classes: {abbreviate(names)}."
            )
    return notes
