"""Tar shards in the WebDataset layout as a data set."""

import os
from pathlib import Path

from kdrun.data.class_order import NATURAL
from kdrun.data.containers.listing import (
    Listing,
    as_tree,
    class_names_from,
    label_classes,
    settle_splits,
)
from kdrun.data.containers.read import Reading, read_listed
from kdrun.data.containers.shards import Shards, find_shards
from kdrun.data.containers.split_values import Names
from kdrun.data.containers.tar_shards import ShardReader
from kdrun.data.imagefolder import BeforeDecoding, read_settings
from kdrun.data.images import RawDataset
from kdrun.data.measure import Progress
from kdrun.data.splits import TEST_FRACTION


def webdataset(
    *,
    root: str | list[str] | None = None,
    train: Names = None,
    val: Names = None,
    test: Names = None,
    image_key: str | None = None,
    label_key: str | None = None,
    json_key: str | None = None,
    class_names: str | list[str] | None = None,
    num_classes: int | None = None,
    image_size: int | list[int] | None = None,
    channels: int | None = None,
    test_fraction: float = TEST_FRACTION,
    cache: bool = True,
    follow_links: bool = False,
    background: str | int | list[int] = "white",
    value_range: str | list[float] = "auto",
    skip_broken: bool = False,
    class_order: str | list[str | int] = NATURAL,
    cache_root: Path,
    split_seed: int = 0,
    progress: Progress | None = None,
    before_decoding: BeforeDecoding | None = None,
) -> RawDataset:
    """The images in tar shards, in the order of the shards and their members.

    One pass over each shard reads the labels and notes where the images are; they are then decoded
    like files, so memory holds one block of images at a time.

    root: a folder of `train-000.tar` and so on, a file, or patterns. train, val, test: the shards
    of each split, where their names do not tell.
    image_key: ending of the image (`jpg`, `input.png`) where samples have several.
    label_key: ending of the label; None: `cls`, or else `json`. json_key: name of the label in a
    JSON file (`meta.label` for a nested one); None: the only usual name.
    class_names, num_classes: of labels that are numbers; see `listing.numbered_classes`.
    Other arguments: as for `imagefolder`.

    Raises DataError for shards that cannot be used, ConfigError for a wrong setting.
    """
    given = {"train": train, "val": val, "test": test}
    shards = find_shards(root, given, (".tar",), follow_links)
    files = read_settings(image_size, channels, background, value_range, skip_broken)
    where = (cache, cache_root, progress, before_decoding)
    reading = Reading(files, test_fraction, split_seed, *where)
    reader = ShardReader(image_key, _ending(label_key), json_key)
    listings = _listings(shards, reader, progress)
    what = str(shards.base)
    splits, notes = settle_splits(listings, what)
    names, source = class_names_from(class_names, shards.base)
    classes, more = label_classes(splits, names, num_classes, class_order, what)
    if source:
        notes.append(f"The class names are those in {source}.")
    tree = as_tree(shards.base, _origin(shards, reader), splits, classes, what)
    first = [f"{shards.base.name}: {shards.described()}."]
    return read_listed(tree, [*first, *reader.notes(shards.base.name), *notes, *more], reading)


def _listings(shards: Shards, reader: ShardReader, progress: Progress | None) -> dict[str, Listing]:
    """The samples of all shards, by split."""
    done, total = 0, sum(len(files) for files in shards.splits.values())
    listings = {}
    for split, files in shards.splits.items():
        listings[split] = Listing()
        for path in files:
            reader.add(listings[split], path)
            done += 1
            if progress is not None:
                progress("reading the index of the shards", done, total)
    return listings


def _origin(shards: Shards, reader: ShardReader) -> str:
    """What names this data set besides its folder."""
    files = [os.path.relpath(path, shards.base) for rows in shards.splits.values() for path in rows]
    return repr((files, reader.image_key, reader.label_key, reader.json_key))


def _ending(key: str | None) -> str | None:
    return None if key is None else key.lstrip(".")
