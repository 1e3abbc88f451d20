"""The transfer set: the images used for distillation, from the training split or a folder.

The teacher still trains on the full training split. In a copy of the data set, the transfer set
replaces the training split, so positions in it (`Batch.index`) count from 0.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdrun.config.readers import ClassKey
from kdrun.config.schema import TransferConfig
from kdrun.data.cropped import crop_splits, stored_size
from kdrun.data.dataset import Dataset
from kdrun.data.decoding.cache import cached_images
from kdrun.data.decoding.decode_pass import Decoding
from kdrun.data.decoding.image import Form
from kdrun.data.decoding.options import ReadSettings
from kdrun.data.decoding.read import with_notes
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.decoding.survey import Survey, survey
from kdrun.data.duplicates import WARN, resolve_transfer
from kdrun.data.folders.read import unlabelled_tree
from kdrun.data.groups import sampling_units
from kdrun.data.images import RawDataset, Split
from kdrun.data.measure import Progress
from kdrun.data.paths import expanded
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError, DataError, did_you_mean
from kdrun.seeds import generator
from kdrun.types import InputInfo

NO_LABEL = -1


@dataclass(frozen=True)
class TransferSet:
    """Training data of the student.

    dataset: the data set with the transfer set as its training split, and the original validation
    and test splits and normalisation. Without labels, every target is -1. `fingerprint` and
    `train_index` together identify the images.
    left_out: numbers of the excluded classes.
    """

    dataset: Dataset
    left_out: tuple[int, ...]
    labelled: bool


def transfer_set(
    dataset: Dataset,
    config: TransferConfig,
    cache_root: Path,
    progress: Progress | None = None,
    duplicates: str = WARN,
) -> TransferSet:
    """Select the transfer set; by default all training images.

    Draws `fraction` of each class (of its groups, if images are grouped), rounded (halves up), at
    least one. With the same `seed`, a smaller fraction is a subset of a larger one.
    duplicates: `dataset.duplicates`, for images of a folder that are validation or test images.
    Raises ConfigError for unknown classes, DataError for too few images and unusable folders.
    """
    left_out = _left_out(config, dataset.classes)
    train, index, digest = dataset.train, dataset.train_index, dataset.fingerprint
    notes = dataset.notes
    if config.folder is not None:
        path = expanded(config.folder, "transfer.folder")
        images = _read_folder(path, dataset, cache_root, progress)
        train, index = images.train, torch.arange(len(images.train))
        held_out = {"test": dataset.test, **({} if dataset.val is None else {"val": dataset.val})}
        keep, copies = resolve_transfer(train, held_out, duplicates)
        parts = [digest, images.fingerprint]
        if keep is not None:
            train, index = train.select(keep), keep
            parts.append("without copies")
        digest = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
        notes += tuple(f"transfer.folder: {note}" for note in (*images.notes, *copies))
    selected = _select(train, left_out, config)
    if selected is not None:
        train, index = train.select(selected), index[selected]
    if len(train) < 2:
        raise DataError(
            f"The transfer set has {len(train)} image(s): raise transfer.fraction or exclude "
            "fewer classes."
        )
    if not config.labelled:
        train = dataclasses.replace(train, targets=torch.full_like(train.targets, NO_LABEL))
    dataset = dataclasses.replace(
        dataset, train=train, train_index=index, fingerprint=digest, notes=notes
    )
    return TransferSet(dataset, left_out, config.labelled)


def class_numbers(keys: Sequence[ClassKey], classes: Sequence[str], where: str) -> set[int]:
    """Class numbers of names or numbers; a key that matches a class name means that class.

    Raises ConfigError that lists the classes, and for a number that may be another class's name.
    """
    numbers = set()
    for key in keys:
        if str(key) in classes:
            numbers.add(list(classes).index(str(key)))
        elif isinstance(key, int) and 0 <= key < len(classes):
            padded = [name for name in classes if re.fullmatch(rf"0+{key}", name)]
            if padded and classes[key] not in padded:
                raise ConfigError(
                    f"{where}: {key} may be class number {key}, which is {classes[key]}, or the "
                    f"class {padded[0]}: type the name."
                )
            numbers.add(key)
        else:
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            hint = did_you_mean(str(key), classes)
            raise ConfigError(
                f"{where}: there is no class {key}.{hint} The {len(classes)} classes are {shown}; "
                "numbers count from 0."
            )
    return numbers


def _left_out(config: TransferConfig, classes: Sequence[str]) -> tuple[int, ...]:
    all_classes = set(range(len(classes)))
    if config.only_classes:
        included = class_numbers(config.only_classes, classes, "transfer.only_classes")
        if included == all_classes:
            raise ConfigError("transfer.only_classes lists every class: leave it out.")
        return tuple(sorted(all_classes - included))
    excluded = class_numbers(config.exclude_classes, classes, "transfer.exclude_classes")
    if excluded == all_classes:
        raise ConfigError("transfer.exclude_classes lists every class: keep at least one.")
    return tuple(sorted(excluded))


def _select(train: Split, left_out: Sequence[int], config: TransferConfig) -> Tensor | None:
    """Ascending positions `[n]` of the selected images; None for all."""
    if not left_out and config.fraction == 1:
        return None
    labels, unit = sampling_units(train)
    kept = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        if label in left_out:
            continue
        members = (labels == label).nonzero().flatten()
        count = max(1, math.floor(config.fraction * len(members) + 0.5))
        order = torch.randperm(len(members), generator=generator(config.seed, "transfer", label))
        kept[members[order[:count]]] = True
    return kept[unit].nonzero().flatten()


def _read_folder(
    folder: Path, dataset: Dataset, cache_root: Path, progress: Progress | None
) -> RawDataset:
    """All images below a folder, without labels, in the form of the data set's images."""
    info = dataset.info
    _check_form(dataset, info)
    tree = unlabelled_tree(folder, "transfer.folder")
    form = Form(stored_size(info.image_size, dataset.crop_ratio), info.in_channels)
    rules = dataset.rules or PixelRules()
    settings: dict[str, object] = {"form": repr(form), "labels": False}
    if rules != PixelRules():
        settings["rules"] = repr(rules)

    def choose(tree: Tree) -> Survey:
        """The data set's form and value ranges; missing ranges are measured on the folder."""
        settings = ReadSettings(form.size, form.channels, rules.background)
        measured = survey(tree, settings, progress).rules
        whole, real = rules.whole or measured.whole, rules.real or measured.real
        return Survey(form, dataclasses.replace(rules, whole=whole, real=real))

    raw = cached_images(cache_root, Decoding(tree, choose, progress, skip_broken=None), settings)
    raw = with_notes(raw, tree.notes)
    if dataset.crop_ratio == 1:
        return raw
    return crop_splits(raw, {"image_size": list(info.image_size)}, dataset.crop_ratio)


def _check_form(dataset: Dataset, info: InputInfo) -> None:
    if dataset.train.images.dtype != torch.uint8 or info.in_channels not in (1, 3):
        raise ConfigError(
            f"transfer.folder adds images, but {dataset.name} holds other data "
            f"({info.in_channels} channels of {dataset.train.images.dtype}): leave it out."
        )
