"""The transfer set: the images that distil, chosen from the training images or from a folder.

Stage 1 is not touched. What is chosen takes the place of the training split in a copy of the data
set, so that positions in the transfer set (`Batch.index`) count from 0.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdrun.config.readers import ClassKey
from kdrun.config.schema import TransferConfig
from kdrun.data.dataset import Dataset
from kdrun.data.decoding import cache as caches
from kdrun.data.decoding.image import Form
from kdrun.data.decoding.options import ReadSettings
from kdrun.data.decoding.read import with_notes
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.decoding.survey import Survey, survey
from kdrun.data.folders.read import pictures_tree
from kdrun.data.images import RawDataset, Split
from kdrun.data.measure import Progress
from kdrun.data.paths import expanded
from kdrun.data.splits import units
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError, DataError, did_you_mean
from kdrun.seeds import generator
from kdrun.types import InputInfo

NO_LABEL = -1


@dataclass(frozen=True)
class TransferSet:
    """What stage 2 is trained on.

    dataset: the data set with the transfer set as its training split; validation, test and
    normalisation are those of the whole. Without labels, every target is -1. Its fingerprint and
    `train_index` together name the images, those of another folder too.
    left_out: numbers of the classes that are left out.
    """

    dataset: Dataset
    left_out: tuple[int, ...]
    labelled: bool


def transfer_set(
    dataset: Dataset, config: TransferConfig, cache_root: Path, progress: Progress | None = None
) -> TransferSet:
    """The transfer set that `config` describes; by default the training images, all of them.

    `fraction` of each kept class is drawn (of its groups, where images form groups), rounded,
    halves up, at least one; with one `seed` a smaller fraction is part of a larger one. Raises
    ConfigError for classes there are not, DataError for too few images and unusable folders.
    """
    left_out = _left_out(config, dataset.classes)
    train, index, digest = dataset.train, dataset.train_index, dataset.fingerprint
    notes = dataset.notes
    if config.folder is not None:
        found = _pictures(expanded(config.folder, "transfer.folder"), dataset, cache_root, progress)
        train, index = found.train, torch.arange(len(found.train))
        digest = hashlib.sha256(f"{digest} {found.fingerprint}".encode()).hexdigest()
        notes += tuple(f"transfer.folder: {note}" for note in found.notes)
    chosen = _chosen(train, left_out, config)
    if chosen is not None:
        train, index = train.select(chosen), index[chosen]
    if len(train) < 2:
        raise DataError(
            f"The transfer set has {len(train)} image(s): keep more, with transfer.fraction or "
            "fewer left-out classes."
        )
    if not config.labelled:
        train = dataclasses.replace(train, targets=torch.full_like(train.targets, NO_LABEL))
    changed = dataclasses.replace(
        dataset, train=train, train_index=index, fingerprint=digest, notes=notes
    )
    return TransferSet(changed, left_out, config.labelled)


def class_numbers(given: Sequence[ClassKey], classes: Sequence[str], where: str) -> set[int]:
    """Class numbers of names or numbers; a text that is a class's name means that class.

    Raises ConfigError naming what there is.
    """
    found = set()
    for key in given:
        if str(key) in classes:
            found.add(list(classes).index(str(key)))
        elif isinstance(key, int) and 0 <= key < len(classes):
            found.add(key)
        else:
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            hint = did_you_mean(str(key), classes)
            raise ConfigError(
                f"{where}: there is no class {key}.{hint} There are {len(classes)}: {shown}; a "
                "number counts from 0."
            )
    return found


def _left_out(config: TransferConfig, classes: Sequence[str]) -> tuple[int, ...]:
    every = set(range(len(classes)))
    if config.only_classes:
        left = every - class_numbers(config.only_classes, classes, "transfer.only_classes")
        if not left:
            raise ConfigError("transfer.only_classes lists every class: leave it out.")
    else:
        left = class_numbers(config.exclude_classes, classes, "transfer.exclude_classes")
        if left == every:
            raise ConfigError("transfer.exclude_classes leaves no class.")
    return tuple(sorted(left))


def _chosen(train: Split, left_out: Sequence[int], config: TransferConfig) -> Tensor | None:
    """`[n]` positions of the images that are kept, rising; None for all."""
    if not left_out and config.fraction == 1:
        return None
    labels, unit = units(train)
    kept = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        if label in left_out:
            continue
        members = (labels == label).nonzero().flatten()
        count = max(1, math.floor(config.fraction * len(members) + 0.5))
        order = torch.randperm(len(members), generator=generator(config.seed, "transfer", label))
        kept[members[order[:count]]] = True
    return kept[unit].nonzero().flatten()


def _pictures(
    folder: Path, dataset: Dataset, cache_root: Path, progress: Progress | None
) -> RawDataset:
    """All pictures below a folder in the form of the data set's images, without labels."""
    info = dataset.info
    _check_form(dataset, info)
    tree = pictures_tree(folder, "transfer.folder")
    form = Form(info.image_size, info.in_channels)
    rules = dataset.rules or PixelRules()
    settings: dict[str, object] = {"form": repr(form), "labels": False}
    if rules != PixelRules():
        settings["rules"] = repr(rules)

    def choose(tree: Tree) -> Survey:
        """The data set's form and ranges; a range it does not need is that of the folder."""
        read = ReadSettings(form.size, form.channels, rules.background)
        own = survey(tree, read, progress).rules
        whole, real = rules.whole or own.whole, rules.real or own.real
        return Survey(form, dataclasses.replace(rules, whole=whole, real=real))

    place = cache_root / caches.folder_name(tree, settings)
    meta = caches.find(place, tree)
    if meta is None:
        meta = caches.build_once(place, tree, choose, progress, None)
    return with_notes(caches.load(place, tree, meta), tree.notes)


def _check_form(dataset: Dataset, info: InputInfo) -> None:
    if dataset.train.images.dtype != torch.uint8 or info.in_channels not in (1, 3):
        raise ConfigError(
            f"transfer.folder holds pictures, and {dataset.name} is made of other data "
            f"({info.in_channels} channels of {dataset.train.images.dtype}): leave it out."
        )
