"""Seeded, stratified hold-out of validation and test images."""

import dataclasses
import hashlib
import math

import torch
from torch import Tensor

from kdrun.data.groups import sampling_units
from kdrun.data.images import RawDataset, Split
from kdrun.errors import ConfigError, DataError
from kdrun.seeds import generator

TEST_FRACTION = 0.2


def hold_out(split: Split, fraction: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Ascending positions (kept, held out) of a split's images, stratified by class.

    Groups are drawn as a whole.
    """
    labels, unit = sampling_units(split)
    _, chosen = stratified(labels, fraction, seed, purpose)
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[chosen] = True
    return (~held[unit]).nonzero().flatten(), held[unit].nonzero().flatten()


def stratified(targets: Tensor, fraction: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Ascending positions (kept, held out) of `targets` `[N]`.

    Holds out `fraction` of each class, rounded (halves up): at least one of two or more images,
    and never all of them. `purpose` makes validation and test draws independent.
    """
    held = torch.zeros(len(targets), dtype=torch.bool)
    labels, counts = targets.unique(return_counts=True)
    by_class = targets.argsort(stable=True).split(counts.tolist()) if fraction > 0 else ()
    for label, members in zip(labels.tolist(), by_class, strict=False):
        count = math.floor(fraction * len(members) + 0.5)
        count = min(max(count, 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator(seed, "split", purpose, label))
        held[members[order[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def hold_out_test(raw: RawDataset, fraction: float, seed: int) -> RawDataset:
    """Hold out `fraction` of the training images as the test split.

    A known fingerprint is extended by the fraction and the seed.
    """
    check_test_fraction(fraction)
    train, test = hold_out(raw.train, fraction, seed, "test")
    if len(test) == 0:
        raise DataError("There is one image per class, so no test images can be held out.")
    known = raw.fingerprint
    return dataclasses.replace(
        raw,
        train=raw.train.select(train),
        test=raw.train.select(test),
        fingerprint=known and hashlib.sha256(f"{known} {fraction!r} {seed}".encode()).hexdigest(),
        normalisation=None,
        notes=(
            *raw.notes,
            f"No test split: {fraction:.0%} of the training images are held out for testing "
            f"(dataset.split_seed={seed}).",
        ),
        test_is_drawn=True,
    )


def check_test_fraction(value: float) -> None:
    """Raise ConfigError unless 0 < `value` < 1."""
    if not 0 < value < 1:
        raise ConfigError(f"dataset.test_fraction={value:g} must lie between 0 and 1, e.g. 0.2.")
