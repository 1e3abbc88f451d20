"""The steps that Parquet files and tar shards share, from listed labels to a data set."""

import os
from collections.abc import Sequence

from kdrun.data.containers.listing import (
    Listing,
    as_tree,
    class_names_from,
    label_classes,
    select_splits,
)
from kdrun.data.containers.shards import Shards
from kdrun.data.decoding.options import ReadOptions
from kdrun.data.decoding.read import read_images
from kdrun.data.images import RawDataset


def read_shards(
    shards: Shards,
    listings: dict[str, Listing],
    origin: str,
    notes: Sequence[str],
    options: ReadOptions,
    *,
    class_names: str | list[str] | None,
    num_classes: int | None,
    stored_names: Sequence[str] | None = None,
) -> RawDataset:
    """The listed images as a data set.

    origin: settings and files that identify the data set in the cache (`Tree.origin`).
    class_names, num_classes: for numeric labels; see `listing.numbered_classes`.
    stored_names: class names found in the files.
    """
    where = str(shards.base)
    splits, split_notes = select_splits(listings, where)
    names, file = class_names_from(class_names, shards.base, stored_names)
    classes, class_notes = label_classes(splits, names, num_classes, options.class_order, where)
    if file:
        split_notes.append(f"Class names are read from {file}.")
    tree = as_tree(shards.base, origin, splits, classes, where)
    return read_images(tree, options, [*notes, *split_notes, *class_notes])


def relative_files(shards: Shards) -> list[str]:
    """Paths of all shards below their common folder."""
    return [
        os.path.relpath(path, shards.base) for files in shards.splits.values() for path in files
    ]
