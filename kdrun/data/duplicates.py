"""Find images that occur in two splits or with two labels, by checksum and then by pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdrun.data.images import LazyImages, Split, checksums
from kdrun.errors import DataError

WARN, ERROR, DROP = "warn", "error", "drop"
DUPLICATES = (WARN, ERROR, DROP)
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
# (the split that loses its copy, the split that keeps it)
PAIRS = (("train", "test"), ("val", "test"), ("train", "val"))
EXAMPLES = 3


@dataclass(frozen=True)
class Duplicates:
    """Images that occur more than once, as one row per occurrence.

    group: `[n]` number of the distinct image. split: `[n]` index into `names`. position: `[n]` in
    its split. target: `[n]` class number.
    """

    names: tuple[str, ...]
    group: np.ndarray
    split: np.ndarray
    position: np.ndarray
    target: np.ndarray

    def shared(self, first: str, second: str) -> np.ndarray:
        """Ascending positions in split `first` of images that are also in `second`."""
        if first not in self.names or second not in self.names:
            return np.zeros(0, np.int64)
        groups = self.group[self.split == self.names.index(second)]
        rows = (self.split == self.names.index(first)) & np.isin(self.group, groups)
        return np.sort(self.position[rows])

    def partner(self, first: str, position: int, second: str) -> int:
        """First position in `second` of the image at `position` of `first`."""
        row = (self.split == self.names.index(first)) & (self.position == position)
        same = (self.group == self.group[row][0]) & (self.split == self.names.index(second))
        return int(self.position[same].min())

    def two_labels(self) -> list[np.ndarray]:
        """Rows of each image with more than one label."""
        order = np.argsort(self.group, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(self.group[order])) + 1)
        return [row for row in rows if len(row) and len(set(self.target[row])) > 1]


def find_duplicates(splits: dict[str, Split], thorough: bool = False) -> Duplicates | None:
    """All images of `splits` that occur more than once.

    None if unknown: for grouped images (overlapping windows of one recording), and for lazy images
    without checksums unless `thorough` reads them all.
    """
    sums = {}
    for name, images in splits.items():
        split_sums = None if images.groups is not None else _sums(images, thorough)
        if split_sums is None:
            return None
        sums[name] = split_sums
    names = tuple(splits)
    all_sums = np.concatenate([sums[name] for name in names])
    split = np.concatenate([np.full(len(sums[name]), i) for i, name in enumerate(names)])
    position = np.concatenate([np.arange(len(sums[name])) for name in names])
    _, inverse, counts = np.unique(all_sums, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse] > 1)
    rows = rows[np.argsort(inverse[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(inverse[rows])) + 1
    copies: list[np.ndarray] = []
    group: list[int] = []
    for candidates in np.split(rows, cuts) if len(rows) else []:
        for same in _verified(candidates, split, position, [splits[name] for name in names]):
            group += [len(copies)] * len(same)
            copies.append(same)
    chosen = np.concatenate(copies) if copies else np.zeros(0, np.int64)
    targets = np.concatenate([splits[name].targets.numpy() for name in names])
    return Duplicates(
        names, np.array(group, np.int64), split[chosen], position[chosen], targets[chosen]
    )


def _sums(split: Split, thorough: bool) -> np.ndarray | None:
    images = split.images
    if isinstance(images, LazyImages) and images.sums is not None:
        return images.sums
    if isinstance(images, LazyImages) and not thorough:
        return None
    sums: list[int] = []
    for block in split.blocks():
        sums += checksums(block.contiguous().numpy())
    return np.array(sums, np.uint32)


def _verified(
    rows: np.ndarray, split: np.ndarray, position: np.ndarray, splits: list[Split]
) -> Iterator[np.ndarray]:
    """Split rows of equal checksum into sets of equal pixels, without single rows."""
    while len(rows) > 1:
        first = _image(splits[split[rows[0]]], position[rows[0]])
        equal = [torch.equal(first, _image(splits[split[row]], position[row])) for row in rows[1:]]
        same = np.concatenate([rows[:1], rows[1:][equal]])
        if len(same) > 1:
            yield same
        rows = rows[1:][~np.array(equal)]


def _image(split: Split, position: int) -> Tensor:
    return split.gather(torch.tensor([int(position)]))[0]


def report(copies: Duplicates, splits: dict[str, Split], classes: tuple[str, ...]) -> list[str]:
    """Notes on images in two splits and with two labels, with examples."""
    notes = []
    for first, second in PAIRS:
        shared = copies.shared(first, second)
        if len(shared):
            notes.append(_format_pair(copies, splits, first, second, shared))
    labelled = copies.two_labels()
    if labelled:
        examples = []
        for rows in labelled[:EXAMPLES]:
            relabelled = rows[copies.target[rows] != copies.target[rows[0]]][0]
            examples.append(
                " = ".join(
                    f"{_name(splits, copies.names[copies.split[row]], copies.position[row])} "
                    f"({classes[copies.target[row]]})"
                    for row in (rows[0], relabelled)
                )
            )
        count = sum(map(len, labelled))
        notes.append(
            f"{count:,} images are copies with different labels: {_format_examples(examples)}."
        )
    return notes


def _format_pair(
    copies: Duplicates, splits: dict[str, Split], first: str, second: str, shared: np.ndarray
) -> str:
    examples = []
    for position in shared[:EXAMPLES].tolist():
        partner = copies.partner(first, position, second)
        examples.append(f"{_name(splits, first, position)} = {_name(splits, second, partner)}")
    count = len(copies.shared(second, first))
    return (
        f"{count:,} of {len(splits[second]):,} {SPLIT_NAMES[second]} images are also "
        f"{SPLIT_NAMES[first]} images: {_format_examples(examples)}."
    )


def _format_examples(examples: list[str]) -> str:
    return f"e.g. {'; '.join(examples)}"


def _name(splits: dict[str, Split], split: str, position: int) -> str:
    images = splits[split].images
    file = images.name(int(position)) if isinstance(images, LazyImages) else None
    return file or f"{SPLIT_NAMES[split]} image {position}"


def resolve(
    splits: dict[str, Split], mode: str, classes: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """Apply `dataset.duplicates`: (split → positions to keep, for splits that lose images; notes).

    warn reports duplicates; error raises DataError for an image in two splits; drop removes
    training images that are also validation or test images, and validation images that are also
    test images.
    """
    copies = find_duplicates(splits, thorough=mode != WARN)
    if copies is None:
        return {}, []
    notes = report(copies, splits, classes)
    leaking = any(len(copies.shared(*pair)) for pair in PAIRS)
    if not leaking:
        return {}, notes
    if mode == ERROR:
        raise DataError(
            f"{' '.join(notes)} (dataset.duplicates=error; drop removes the copies from training "
            "and validation.)"
        )
    if mode == WARN:
        notes[0] += " dataset.duplicates=drop removes copies from training and validation."
        return {}, notes
    return _without_copies(copies, splits, classes, notes)


def resolve_transfer(
    images: Split, held_out: dict[str, Split], mode: str
) -> tuple[Tensor | None, list[str]]:
    """Apply `dataset.duplicates` to a transfer set: (positions to keep, None for all; notes).

    held_out: the validation and test splits, which lose nothing. Raises DataError if mode is error.
    """
    splits = {"train": images, **held_out}
    copies = find_duplicates(splits, thorough=mode != WARN)
    if copies is None:
        return None, []
    shared = {name: copies.shared("train", name) for name in held_out}
    notes = [
        _format_pair(copies, splits, "train", name, positions)
        for name, positions in shared.items()
        if len(positions)
    ]
    if not notes:
        return None, []
    if mode == ERROR:
        raise DataError(
            f"transfer.folder: {' '.join(notes)} (dataset.duplicates=error; drop leaves them out.)"
        )
    if mode == WARN:
        notes[-1] += " dataset.duplicates=drop leaves them out."
        return None, notes
    dropped = np.unique(np.concatenate(list(shared.values())))
    notes.append(f"dataset.duplicates=drop: {len(dropped):,} images left out.")
    return torch.from_numpy(np.setdiff1d(np.arange(len(images)), dropped)), notes


def _without_copies(
    copies: Duplicates, splits: dict[str, Split], classes: tuple[str, ...], notes: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    keep = {}
    for name in ("train", "val"):
        shared = [copies.shared(first, second) for first, second in PAIRS if first == name]
        positions = np.unique(np.concatenate(shared))
        if not len(positions):
            continue
        mask = np.ones(len(splits[name]), bool)
        mask[positions] = False
        keep[name] = torch.from_numpy(np.flatnonzero(mask))
        notes.append(
            f"dataset.duplicates=drop: {len(positions):,} {SPLIT_NAMES[name]} images left out."
        )
        targets = splits[name].targets
        empty = sorted(set(targets.tolist()) - set(targets[keep[name]].tolist()))
        if (empty and name == "train") or not mask.any():
            shown = ", ".join(classes[number] for number in empty[:5])
            raise DataError(
                f"dataset.duplicates=drop leaves no {SPLIT_NAMES[name]} images of {shown}: set "
                "dataset.duplicates=warn, or split the images differently."
            )
    return keep, notes
