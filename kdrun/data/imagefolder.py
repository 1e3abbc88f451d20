"""Any folder of images as a data set: `train/<class>/…`, with `test/` or `val/`, or alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdrun.data.class_order import NATURAL
from kdrun.data.decoding import cache as caches
from kdrun.data.decoding.conversions import changes_pixels
from kdrun.data.decoding.decode_pass import DecodePass, complete_pass
from kdrun.data.decoding.image import LARGEST_PIXELS, DecodedImages, Form
from kdrun.data.decoding.rules import background_of, value_range_of
from kdrun.data.decoding.survey import ReadSettings, Survey, survey, without
from kdrun.data.folders.read import read_tree
from kdrun.data.images import RawDataset, Split, checksums
from kdrun.data.measure import Moments, Progress
from kdrun.data.paths import expanded
from kdrun.data.splits import TEST_FRACTION, check_test_fraction, hold_out_test
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError

BeforeDecoding = Callable[[tuple[str, ...], Form], None]


def imagefolder(
    *,
    root: str,
    image_size: int | list[int] | None = None,
    channels: int | None = None,
    test_fraction: float = TEST_FRACTION,
    cache: bool = True,
    follow_links: bool = False,
    background: str | int | list[int] = "white",
    value_range: str | list[float] = "auto",
    skip_broken: bool = False,
    train_folder: str | None = None,
    val_folder: str | None = None,
    test_folder: str | None = None,
    class_order: str | list[str | int] = NATURAL,
    cache_root: Path,
    split_seed: int = 0,
    progress: Progress | None = None,
    before_decoding: BeforeDecoding | None = None,
) -> RawDataset:
    """The images below `root`; see `tree.read_tree` for the folders it understands.

    image_size: side in pixels, or [height, width]; None keeps the size that all images share, or
    else takes the median of their shorter sides, at most 224. Other sizes are resized until they
    cover it and cut at the centre.
    channels: 1 (grey) or 3 (colour); None: 1 when every file is stored as grey.
    test_fraction: share of each class held out as the test images where there is neither a
    `test/` nor a `val/` folder.
    cache: keep the decoded images below `cache_root`; false decodes them whenever they are asked
    for, which is slow and meant for data larger than the disk. Without a cache the fingerprint is
    one of the files' names and sizes, and of the form they are given, and every call decodes all
    files once to find broken ones.
    follow_links: also links that lead out of `root`; a folder from elsewhere could name any file.
    background, value_range: see `rules.background_of` and `rules.value_range_of`.
    skip_broken: leave out files that cannot be decoded instead of raising DataError.
    train_folder, val_folder, test_folder: where a split lies, relative to `root` or absolute; None
    finds it by its name. A `*` stands for the class (`*/train`).
    class_order: `natural` (`class2` before `class10`), `lexicographic` (as torchvision sorts), all
    class names in order, or the path of a text file that lists them.
    before_decoding: called with classes and form when the headers are read, before a long decode.

    Raises DataError for a folder or file that cannot be used, ConfigError for a wrong setting.
    """
    check_test_fraction(test_fraction)
    folders = {"train": train_folder, "val": val_folder, "test": test_folder}
    tree = read_tree(
        expanded(root, "dataset.root"),
        follow_links,
        folders={split: value for split, value in folders.items() if value is not None},
        class_order=class_order,
    )
    settings = read_settings(image_size, channels, background, value_range, skip_broken)
    raw = from_tree(tree, settings, cache, cache_root, progress, before_decoding)
    return raw if raw.test is not None else hold_out_test(raw, test_fraction, split_seed)


def read_settings(
    image_size: int | list[int] | None = None,
    channels: int | None = None,
    background: Any = "white",
    value_range: Any = "auto",
    skip_broken: bool = False,
) -> ReadSettings:
    """The settings of `dataset` that say how image files are read; ConfigError for wrong ones."""
    if channels not in (None, 1, 3):
        raise ConfigError(f"dataset.channels={channels} must be 1 (grey), 3 (colour) or null.")
    return ReadSettings(
        _size(image_size),
        channels,
        background_of(background),
        value_range_of(value_range),
        skip_broken,
    )


def from_tree(
    tree: Tree,
    settings: ReadSettings,
    cache: bool,
    cache_root: Path,
    progress: Progress | None,
    before_decoding: BeforeDecoding | None = None,
) -> RawDataset:
    """The images of a tree in one form, from the cache where it holds them; see `imagefolder`."""

    def choose(tree: Tree) -> Survey:
        plan = survey(tree, settings, progress)
        if before_decoding is not None:
            before_decoding(tree.classes, plan.form)
        return plan

    if not cache:
        raw = _undecoded(tree, choose, settings.skip_broken, progress)
        return with_notes(raw, tree)
    folder = Path(cache_root) / caches.folder_name(tree, settings.key())
    meta = caches.find(folder, tree)
    if meta is None:
        meta = caches.build_once(folder, tree, choose, progress, settings.skip_broken)
    return with_notes(caches.load(folder, tree, meta), tree)


def with_notes(raw: RawDataset, tree: Tree) -> RawDataset:
    """The data set with what was decided when its files were listed, ahead of its other notes."""
    return dataclasses.replace(raw, notes=(*tree.notes, *raw.notes))


def _size(value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or not all(type(side) is int and side >= 1 for side in pair):
        raise ConfigError(
            f"dataset.image_size={value} must be a number of pixels, [height, width] or null."
        )
    if pair[0] * pair[1] > LARGEST_PIXELS:
        raise ConfigError(
            f"dataset.image_size={value} makes images of more than {LARGEST_PIXELS:,} pixels: set "
            "a smaller size."
        )
    return pair[0], pair[1]


def _undecoded(
    tree: Tree,
    choose: Callable[[Tree], Survey],
    skip_broken: bool,
    progress: Progress | None,
) -> RawDataset:
    """Images that are decoded when asked for, after one pass that finds the broken ones."""

    def run(check: DecodePass) -> tuple[dict[str, list[int]], Moments]:
        sums: dict[str, list[int]] = {}
        moments = Moments(check.form.channels, check.form.size, len(tree.splits["train"]))
        for name, files in tree.splits.items():
            sums[name] = []
            for images, _ in check.blocks(files):
                sums[name] += checksums(images)
                if name == "train":
                    moments.add(torch.from_numpy(images))
        return sums, moments

    check, (sums, moments), notes = complete_pass(
        tree, choose, run, skip_broken, progress, "checking images"
    )
    form, rules = check.form, check.rules
    tree = without(tree, check.broken_names)
    found = {
        name: Split(
            DecodedImages(files.paths, form, rules, np.array(sums[name], np.uint32)),
            torch.tensor(files.targets),
        )
        for name, files in tree.splits.items()
    }
    text = repr(form) + (repr(rules) if changes_pixels(check.kinds) else "")
    return RawDataset(
        tree.classes,
        found["train"],
        found.get("val"),
        found.get("test"),
        fingerprint=tree.digest(times=False, form=text),
        normalisation=moments.normalisation(),
        notes=notes,
        rules=rules,
    )
