"""Which images are held out: seeded, and with every class in its proportion."""

import dataclasses
import hashlib
import math

import torch
from torch import Tensor

from kdrun.data.images import RawDataset, Split
from kdrun.errors import ConfigError, DataError
from kdrun.seeds import generator

TEST_FRACTION = 0.2


def hold_out(split: Split, fraction: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Positions (kept, held out) of a split's images, both rising: `stratified`.

    Where images belong to groups, whole groups are drawn, in each class its share of them.
    """
    labels, unit = units(split)
    _, chosen = stratified(labels, fraction, seed, purpose)
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[chosen] = True
    return (~held[unit]).nonzero().flatten(), held[unit].nonzero().flatten()


def units(split: Split) -> tuple[Tensor, Tensor]:
    """What is drawn as a whole: (label of each unit `[U]`, unit of each image `[N]`).

    A unit is a group where images belong to groups, and a single image where they do not.
    """
    if split.groups is None:
        return split.targets, torch.arange(len(split))
    names, unit = split.groups.unique(return_inverse=True)
    labels = torch.zeros_like(names)
    labels[unit] = split.targets
    return labels, unit


def stratified(targets: Tensor, fraction: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Positions (kept, held out) of `targets` `[N]`, both rising.

    Every class gives `fraction` of its images, rounded (halves up); a class of two or more gives
    at least one, and every class keeps at least one, so a class of one image gives none.
    `purpose` separates the draws of the validation from those of the test images.
    """
    held = torch.zeros(len(targets), dtype=torch.bool)
    for label in targets.unique().tolist() if fraction > 0 else []:
        members = (targets == label).nonzero().flatten()
        count = math.floor(fraction * len(members) + 0.5)
        count = min(max(count, 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator(seed, "split", purpose, label))
        held[members[order[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def hold_out_test(raw: RawDataset, fraction: float, seed: int) -> RawDataset:
    """A source without test images, with `fraction` of its training images held out for them.

    The draw is `hold_out`, under the name "test". A known fingerprint stays known: it then
    also says which images were held out.
    """
    check_test_fraction(fraction)
    train, test = hold_out(raw.train, fraction, seed, "test")
    if len(test) == 0:
        raise DataError("There is one image per class, none to hold out as the test images.")
    known = raw.fingerprint
    return dataclasses.replace(
        raw,
        train=raw.train.select(train),
        test=raw.train.select(test),
        fingerprint=known and hashlib.sha256(f"{known} {fraction!r} {seed}".encode()).hexdigest(),
        normalisation=None,
        notes=(
            *raw.notes,
            f"There are no test images: {fraction:.0%} of the training images are held out, chosen "
            f"by dataset.split_seed={seed}.",
        ),
    )


def check_test_fraction(value: float) -> None:
    """Raise ConfigError unless `value` is a share that leaves images on both sides."""
    if not 0 < value < 1:
        raise ConfigError(f"dataset.test_fraction={value:g} must lie between 0 and 1, e.g. 0.2.")
