"""Open a configured data set: source, held-out images, normalisation."""

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrun.config import build
from kdrun.config.schema import DatasetConfig
from kdrun.data import duplicates, measure, splits
from kdrun.data.constants import check_scale
from kdrun.data.cropped import crop_splits, stored_arguments, with_cropped_form
from kdrun.data.custom import as_raw_dataset
from kdrun.data.decoding.options import BeforeDecoding
from kdrun.data.decoding.rules import CROP_RATIO, PIXEL_RULES, PixelRules
from kdrun.data.degenerate import degenerate_notes
from kdrun.data.groups import check_groups
from kdrun.data.images import RawDataset, Split
from kdrun.data.labels import check_classes, check_num_classes, check_targets, missing_notes
from kdrun.data.measure import Progress
from kdrun.errors import ConfigError, DataError
from kdrun.files import canonical_hash
from kdrun.types import InputInfo, Normalisation

BUILTIN_SOURCES = "kdrun.data."


@dataclass(frozen=True)
class Dataset:
    """A data set ready for loaders.

    val: None if nothing is held out.
    fingerprint: sha256 hex over the source's training (before the hold-out), validation and test
    images and labels. Independent of `val_fraction` and of how images are read.
    train_index: `[len(train)]` positions of the training images in the source's training split.
    notes: decisions to report to the user, one sentence each.
    rules: conversion of image files to pixels; None for other sources.
    crop_ratio: the images are the centres of stored ones (`kdrun.data.cropped`); 1: whole images.
    test_is_drawn: see `RawDataset`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    normalisation: Normalisation
    fingerprint: str
    train_index: Tensor
    notes: tuple[str, ...] = ()
    rules: PixelRules | None = None
    crop_ratio: float = 1.0
    test_is_drawn: bool = False

    @property
    def pixel_type(self) -> str:
        """Stored type of the images: `uint8` (0..255) or `float32`."""
        return str(self.train.images.dtype).removeprefix("torch.")

    @property
    def pixel_metadata(self) -> dict[str, Any]:
        """Pixel rules for a network card; empty for the defaults."""
        entries: dict[str, Any] = {}
        if self.rules is not None and self.rules != PixelRules():
            entries[PIXEL_RULES] = self.rules.to_dict()
        if self.crop_ratio != 1:
            entries[CROP_RATIO] = self.crop_ratio
        return entries

    @property
    def info(self) -> InputInfo:
        """Input description for building a network."""
        channels, height, width = self.train.shape
        return InputInfo(len(self.classes), channels, (height, width))


def open_dataset(
    config: DatasetConfig,
    val_fraction: float,
    cache_root: Path,
    progress: Progress | None = None,
    before_decoding: BeforeDecoding | None = None,
) -> Dataset:
    """Read a data set and split it.

    A source without a test split first holds out a fifth of its training images for testing. Then
    `val_fraction` of the training images, per class (`splits.hold_out`), becomes the validation
    split, unless the source has one; `val_fraction` 0 means no validation split. Decoded images are
    cached below `cache_root`.
    before_decoding: see `ReadOptions`.

    Raises DataError for missing or damaged data, ConfigError for settings that do not fit them.
    """
    raw, num_classes = _read(config, Path(cache_root), progress, before_decoding)
    check_num_classes(raw, num_classes, config.name)
    _check(raw, config.name)
    if raw.test is None:
        raw = splits.hold_out_test(raw, splits.TEST_FRACTION, config.split_seed)
    assert raw.test is not None
    present = [split for split in (raw.train, raw.val, raw.test) if split is not None]
    digest = raw.fingerprint or measure.fingerprint(present, progress)
    if config.crop_ratio != 1:
        digest = canonical_hash([digest, "centre", *raw.train.shape[1:]])
    train, val, index = _with_validation(raw, val_fraction, config)
    train, val, index, notes, source = _handle_duplicates(train, val, raw, index, config.duplicates)
    normalisation = _normalisation(config, source, progress)
    return Dataset(
        config.name,
        raw.classes,
        train,
        val,
        raw.test,
        normalisation,
        digest,
        index,
        (*raw.notes, *notes, *missing_notes(raw.classes, train, val, raw.test)),
        raw.rules,
        config.crop_ratio,
        raw.test_is_drawn,
    )


def _read(
    config: DatasetConfig,
    cache_root: Path,
    progress: Progress | None,
    before_decoding: BeforeDecoding | None,
) -> tuple[RawDataset, int | None]:
    """What the source returns, cut to `dataset.crop_ratio`, and `dataset.num_classes`."""
    # User functions with **kwargs must not receive arguments that they never got before.
    internal = (
        {"before_decoding": with_cropped_form(before_decoding, config.crop_ratio)}
        if config.target.startswith(BUILTIN_SOURCES)
        else {}
    )
    kwargs, num_classes = source_arguments(config)
    returned = build.call(
        config.target,
        stored_arguments(kwargs, config.crop_ratio),
        "dataset",
        cache_root=cache_root,
        split_seed=config.split_seed,
        progress=progress,
        **internal,
    )
    raw = as_raw_dataset(returned, config.target, num_classes)
    if config.crop_ratio != 1:
        raw = crop_splits(raw, kwargs, config.crop_ratio)
    return raw, num_classes


def _handle_duplicates(
    train: Split, val: Split | None, raw: RawDataset, index: Tensor, mode: str
) -> tuple[Split, Split | None, Tensor, list[str], RawDataset]:
    """Apply `dataset.duplicates`: (train, val, matching `index`, notes, source).

    The returned source lacks dropped training images, so that they do not affect mean and std.
    """
    assert raw.test is not None
    splits = {"train": train, "val": val, "test": raw.test}
    present = {name: split for name, split in splits.items() if split is not None}
    keep, notes = duplicates.resolve(present, mode, raw.classes)
    held = torch.ones(len(raw.train), dtype=torch.bool)
    held[index] = False
    val_index = held.nonzero().flatten()  # validation images held out of the training images
    if "train" in keep:
        train, index = train.select(keep["train"]), index[keep["train"]]
    if "val" in keep and val is not None:
        val = val.select(keep["val"])
        if raw.val is None:
            val_index = val_index[keep["val"]]
    if len(index) + len(val_index) < len(raw.train):
        kept = torch.cat((index, val_index)).sort().values
        raw = replace(raw, train=raw.train.select(kept), normalisation=None)
    return train, val, index, [*notes, *degenerate_notes(present)], raw


def source_arguments(config: DatasetConfig) -> tuple[dict[str, Any], int | None]:
    """The source's arguments, and `dataset.num_classes`.

    The arguments include `num_classes` only if the source declares it.
    """
    kwargs = dict(config.kwargs)
    num_classes = kwargs.get("num_classes")
    if num_classes is None:
        return kwargs, None
    if type(num_classes) is not int or num_classes < 2:
        raise ConfigError(f"dataset.num_classes={num_classes} must be a whole number, at least 2.")
    target = build.locate(config.target, "dataset")
    parameters = inspect.signature(target).parameters
    if "num_classes" not in parameters:
        del kwargs["num_classes"]
    return kwargs, num_classes


def _with_validation(
    raw: RawDataset, val_fraction: float, config: DatasetConfig
) -> tuple[Split, Split | None, Tensor]:
    """(train, val, positions of train in the source's training images)."""
    if val_fraction == 0 or raw.val is not None:
        return raw.train, raw.val if val_fraction > 0 else None, torch.arange(len(raw.train))
    kept, held = splits.hold_out(raw.train, val_fraction, config.split_seed, "validation")
    if len(held) == 0:
        raise DataError(
            f"{config.name} has one training image per class, so none can be held out for "
            "validation: set val_fraction=0."
        )
    return raw.train.select(kept), raw.train.select(held), kept


def _check(raw: RawDataset, name: str) -> None:
    """Raise DataError for splits that are empty, unequal or incorrectly labelled."""
    if len(raw.classes) < 2:
        raise DataError(f"{name} has {len(raw.classes)} class; a classifier needs at least two.")
    for what, split in (("training", raw.train), ("validation", raw.val), ("test", raw.test)):
        if split is None:
            continue
        if len(split) == 0:
            raise DataError(f"{name} has no {what} images.")
        if (split.shape, split.images.dtype) != (raw.train.shape, raw.train.images.dtype):
            raise DataError(
                f"{name}: the {what} images are {_format_shape(split)} and the training images "
                f"{_format_shape(raw.train)} (channels × height × width); make them equal."
            )
        check_targets(split, len(raw.classes), f"{name}: the {what}")
        check_groups(split, f"{name}, {what} images")
    check_classes(raw, name)


def _format_shape(split: Split) -> str:
    sizes = "×".join(str(size) for size in split.shape)
    return f"{sizes} {str(split.images.dtype).removeprefix('torch.')}"


def _normalisation(
    config: DatasetConfig, raw: RawDataset, progress: Progress | None
) -> Normalisation:
    if config.mean is None or config.std is None:
        return raw.normalisation or measure.mean_and_std(raw.train, progress)
    channels = raw.train.shape[0]
    for key, values in (("mean", config.mean), ("std", config.std)):
        if len(values) != channels:
            raise ConfigError(
                f"dataset.{key} has {len(values)} values, but the images have {channels} "
                f"channels: give {channels}, or set mean=null and std=null to measure them."
            )
    if raw.train.images.dtype == torch.uint8:
        check_scale(config.mean, config.std, "dataset")
    return Normalisation(tuple(config.mean), tuple(config.std))
