"""The steps that Parquet files and tar shards share, from listed labels to a data set."""

from collections.abc import Sequence

from kdrun.data.containers.classes import class_names_from, label_classes
from kdrun.data.containers.listing import Listing, as_tree, select_splits
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
    split_setting: str | bool | None,
    class_names: str | list[str] | None,
    num_classes: int | None,
    stored_names: Sequence[str] | None = None,
) -> RawDataset:
    """The listed images as a data set.

    origin: settings and files that identify the data set in the cache (`Tree.origin`).
    split_setting: where the user says the splits are; None lets folders tell them.
    class_names, num_classes: for numeric labels; see `classes.numbered_classes`.
    stored_names: class names found in the files.
    """
    where = str(shards.base)
    splits, split_notes = select_splits(
        listings, where, shards.base if split_setting is None else None
    )
    names, file = class_names_from(class_names, shards.base, stored_names)
    classes, class_notes = label_classes(splits, names, num_classes, options.class_order, where)
    if file:
        split_notes.append(f"Class names are read from {file}.")
    tree = as_tree(shards.base, origin, splits, classes, where)
    return read_images(tree, options, [*notes, *split_notes, *class_notes])
