"""From a list of image files to a data set: decoded into the cache, or on every access."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from kdrun.data.decoding.cache import cached_images
from kdrun.data.decoding.conversions import changes_pixels
from kdrun.data.decoding.decode_pass import DecodePass, Decoding
from kdrun.data.decoding.image import DecodedImages
from kdrun.data.decoding.options import ReadOptions
from kdrun.data.decoding.survey import Survey, survey, without
from kdrun.data.images import RawDataset, Split
from kdrun.data.measure import Moments
from kdrun.data.splits import hold_out_test
from kdrun.data.tree import Tree
from kdrun.files import canonical_hash


def read_images(tree: Tree, options: ReadOptions, notes: Sequence[str] = ()) -> RawDataset:
    """The images of a tree in one form, with test images held out if the tree has none.

    notes: what the source decided so far; they precede the notes about decoding.
    """
    settings = options.read_settings()
    progress, before_decoding = options.progress, options.before_decoding

    def choose(tree: Tree) -> Survey:
        plan = survey(tree, settings, progress)
        if before_decoding is not None:
            before_decoding(tree.classes, plan.form)
        return plan

    decoding = Decoding(tree, choose, progress, settings.skip_broken)
    if options.cache and options.cache_root is not None:
        raw = cached_images(options.cache_root, decoding, settings.key())
    else:
        raw = _decode_on_access(decoding)
    raw = with_notes(raw, [*notes, *tree.notes])
    if raw.test is not None:
        return raw
    return hold_out_test(raw, options.test_fraction, options.split_seed)


def with_notes(raw: RawDataset, notes: Sequence[str]) -> RawDataset:
    """The data set with `notes` before its existing notes."""
    return dataclasses.replace(raw, notes=(*notes, *raw.notes))


def _decode_on_access(decoding: Decoding) -> RawDataset:
    """Images that are decoded on every access, after one pass that finds broken files."""
    tree = decoding.tree

    def work(check: DecodePass) -> tuple[dict[str, np.ndarray], Moments]:
        sums: dict[str, np.ndarray] = {}
        moments = Moments(check.form.channels, check.form.size, len(tree.splits["train"]))
        for name, files in tree.splits.items():
            parts = []
            for block in check.blocks(files):
                parts.append(block.sums)
                if name == "train" and block.images is not None:
                    moments.add(torch.from_numpy(block.images))
            sums[name] = np.concatenate(parts)
        return sums, moments

    check, (sums, moments), notes = decoding.run(work, "checking images")
    form, rules = check.form, check.rules
    tree = without(tree, check.broken_names)
    splits = {
        name: Split(
            DecodedImages(files.paths, form, rules, sums[name]),
            torch.tensor(files.targets),
        )
        for name, files in tree.splits.items()
    }
    text = repr(form) + (repr(rules) if changes_pixels(check.kinds) else "")
    return RawDataset(
        tree.classes,
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        fingerprint=canonical_hash(
            [tree.digest(times=False, form=text), *(sums[name].tolist() for name in tree.splits)]
        ),
        normalisation=moments.normalisation(),
        notes=notes,
        rules=rules,
    )
