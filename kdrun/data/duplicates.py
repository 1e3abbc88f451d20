"""The same image in two splits, or under two labels: found by checksum, verified pixel by pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdrun.data.images import LazyImages, Split, checksums
from kdrun.errors import DataError

WARN, ERROR, DROP = "warn", "error", "drop"
DUPLICATES = (WARN, ERROR, DROP)
WORDS = {"train": "training", "val": "validation", "test": "test"}
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
        """Positions in the split `first` of images that are also in `second`, rising."""
        if first not in self.names or second not in self.names:
            return np.zeros(0, np.int64)
        groups = self.group[self.split == self.names.index(second)]
        chosen = (self.split == self.names.index(first)) & np.isin(self.group, groups)
        return np.sort(self.position[chosen])

    def partner(self, first: str, position: int, second: str) -> int:
        """A position in `second` of the image at `position` of `first`."""
        at = (self.split == self.names.index(first)) & (self.position == position)
        same = (self.group == self.group[at][0]) & (self.split == self.names.index(second))
        return int(self.position[same].min())

    def two_labels(self) -> list[np.ndarray]:
        """Rows of each image that has more than one label."""
        order = np.argsort(self.group, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(self.group[order])) + 1)
        return [row for row in rows if len(row) and len(set(self.target[row])) > 1]


def find_duplicates(splits: dict[str, Split], thorough: bool = False) -> Duplicates | None:
    """All images of `splits` that occur more than once.

    None where that is not known: images that belong to groups (windows of one recording, say), and
    images that are read from elsewhere without checksums, unless `thorough` reads them all.
    """
    sums = {}
    for name, images in splits.items():
        found = None if images.groups is not None else _sums(images, thorough)
        if found is None:
            return None
        sums[name] = found
    names = tuple(splits)
    every = np.concatenate([sums[name] for name in names])
    split = np.concatenate([np.full(len(sums[name]), at) for at, name in enumerate(names)])
    position = np.concatenate([np.arange(len(sums[name])) for name in names])
    _, inverse, counts = np.unique(every, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse] > 1)
    rows = rows[np.argsort(inverse[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(inverse[rows])) + 1
    kept: list[np.ndarray] = []
    group: list[int] = []
    for candidates in np.split(rows, cuts) if len(rows) else []:
        for same in _verified(candidates, split, position, [splits[name] for name in names]):
            group += [len(kept)] * len(same)
            kept.append(same)
    chosen = np.concatenate(kept) if kept else np.zeros(0, np.int64)
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
    found: list[int] = []
    for block in split.blocks():
        found += checksums(block.contiguous().numpy())
    return np.array(found, np.uint32)


def _verified(
    rows: np.ndarray, split: np.ndarray, position: np.ndarray, splits: list[Split]
) -> Iterator[np.ndarray]:
    """Rows of equal checksum, divided into those of equal pixels; single ones are left out."""
    while len(rows) > 1:
        first = _image(splits[split[rows[0]]], position[rows[0]])
        equal = [torch.equal(first, _image(splits[split[row]], position[row])) for row in rows[1:]]
        same = np.concatenate([rows[:1], rows[1:][equal]])
        if len(same) > 1:
            yield same
        rows = rows[1:][~np.array(equal)]


def _image(split: Split, position: int) -> Tensor:
    return split.gather(torch.tensor([int(position)]))[0]


def report(found: Duplicates, splits: dict[str, Split], classes: tuple[str, ...]) -> list[str]:
    """Sentences about images in two splits and under two labels, with examples."""
    notes = []
    for first, second in PAIRS:
        shared = found.shared(first, second)
        if len(shared):
            notes.append(_pair_words(found, splits, first, second, shared))
    labelled = found.two_labels()
    if labelled:
        examples = []
        for rows in labelled[:EXAMPLES]:
            other = rows[found.target[rows] != found.target[rows[0]]][0]
            pair = (rows[0], other)
            examples.append(
                " = ".join(
                    f"{_name(splits, found.names[found.split[row]], found.position[row])} "
                    f"({classes[found.target[row]]})"
                    for row in pair
                )
            )
        count = sum(map(len, labelled))
        notes.append(f"{count:,} images are copies with different labels: {_list(examples)}.")
    return notes


def _pair_words(
    found: Duplicates, splits: dict[str, Split], first: str, second: str, shared: np.ndarray
) -> str:
    examples = []
    for position in shared[:EXAMPLES].tolist():
        partner = found.partner(first, position, second)
        examples.append(f"{_name(splits, first, position)} = {_name(splits, second, partner)}")
    count = len(found.shared(second, first))
    return (
        f"{count:,} of {len(splits[second]):,} {WORDS[second]} images are also {WORDS[first]} "
        f"images: {_list(examples)}."
    )


def _list(examples: list[str]) -> str:
    return f"e.g. {'; '.join(examples)}"


def _name(splits: dict[str, Split], split: str, position: int) -> str:
    images = splits[split].images
    known = images.name(int(position)) if isinstance(images, LazyImages) else None
    return known or f"{WORDS[split]} image {position}"


def settle(
    splits: dict[str, Split], mode: str, classes: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """What `dataset.duplicates` asks for: positions to keep, of splits that lose images; notes.

    warn reports, error raises DataError for an image in two splits, drop takes training images
    that are also validation or test images, and validation images that are also test images, out.
    """
    found = find_duplicates(splits, thorough=mode != WARN)
    if found is None:
        return {}, []
    notes = report(found, splits, classes)
    leaking = any(len(found.shared(*pair)) for pair in PAIRS)
    if not leaking:
        return {}, notes
    if mode == ERROR:
        raise DataError(
            f"{' '.join(notes)} (dataset.duplicates=error; drop takes the copies out of training "
            "and validation.)"
        )
    if mode == WARN:
        notes[0] += " dataset.duplicates=drop takes copies out of training and validation."
        return {}, notes
    return _without_copies(found, splits, classes, notes)


def _without_copies(
    found: Duplicates, splits: dict[str, Split], classes: tuple[str, ...], notes: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    keep = {}
    for name in ("train", "val"):
        lost = [found.shared(first, second) for first, second in PAIRS if first == name]
        positions = np.unique(np.concatenate(lost))
        if not len(positions):
            continue
        mask = np.ones(len(splits[name]), bool)
        mask[positions] = False
        keep[name] = torch.from_numpy(np.flatnonzero(mask))
        notes.append(f"dataset.duplicates=drop: {len(positions):,} {WORDS[name]} images left out.")
        targets = splits[name].targets
        empty = sorted(set(targets.tolist()) - set(targets[keep[name]].tolist()))
        if (empty and name == "train") or not mask.any():
            shown = ", ".join(classes[number] for number in empty[:5])
            raise DataError(
                f"dataset.duplicates=drop leaves no {WORDS[name]} images of {shown}: set "
                "dataset.duplicates=warn, or divide the images into splits anew."
            )
    return keep, notes
