"""Tar shards in the WebDataset layout as a data set."""

import itertools

from kdrun.data.containers.compressed import ENDINGS, is_compressed
from kdrun.data.containers.json_splits import JsonSplits
from kdrun.data.containers.listing import Listing
from kdrun.data.containers.read import read_shards
from kdrun.data.containers.shards import Shards, find_shards
from kdrun.data.containers.split_columns import Names
from kdrun.data.containers.tar_shards import ShardReader
from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.images import SPLITS, RawDataset
from kdrun.data.measure import Progress
from kdrun.errors import ConfigError


@takes_options()
def webdataset(
    *,
    root: str | list[str] | None = None,
    train: Names = None,
    val: Names = None,
    test: Names = None,
    image_key: str | None = None,
    label_key: str | None = None,
    json_key: str | None = None,
    split_key: str | bool | None = None,
    class_names: str | list[str] | None = None,
    num_classes: int | None = None,
    options: ReadOptions,
) -> RawDataset:
    """The images in tar shards, in the order of the shards and their members.

    One pass over each shard reads the labels and the offsets of the images. Images are then decoded
    from these offsets, one block at a time, so memory use stays bounded. Compressed shards
    (`.tar.gz` and the like) allow sequential access only, hence they need the cache.

    root: a folder of `train-000.tar` and so on, a file, or patterns. train, val, test: the shards
    of each split, if their names do not tell.
    image_key: extension of the image (`jpg`, `input.png`) if samples have several.
    label_key: extension of the label; None: `cls`, or else `json`. json_key: name of the label in a
    JSON file (`meta.label` if nested); None: the only usual name.
    split_key: name of the split in the JSON files, for shards whose names tell none; False ignores
    it. See `json_splits.JsonSplits`.
    class_names, num_classes: for numeric labels; see `classes.numbered_classes`.
    options: see `ReadOptions`.

    Raises DataError for unusable shards, ConfigError for an invalid setting.
    """
    splits = {"train": train, "val": val, "test": test}
    shards = find_shards(root, splits, ENDINGS, options.follow_links)
    if not options.cache:
        _require_random_access(shards)
    reader = ShardReader(
        image_key,
        None if label_key is None else label_key.lstrip("."),
        json_key,
        JsonSplits.of(shards, split_key),
    )
    listings = _read_index(shards, reader, options.progress)
    notes = [f"{shards.base.name}: {shards.described()}.", *reader.notes(shards.base.name)]
    origin = repr((shards.relative_files(), reader.image_key, reader.label_key, reader.json_key))
    origin += split_key if isinstance(split_key, str) else ""
    return read_shards(
        shards,
        listings,
        origin,
        notes,
        options,
        split_setting=split_key,
        class_names=class_names,
        num_classes=num_classes,
    )


def _require_random_access(shards: Shards) -> None:
    """Raise ConfigError for compressed shards, which cannot be read in random order."""
    for path in itertools.chain(*shards.splits.values()):
        if is_compressed(path):
            raise ConfigError(
                f"dataset.cache=false reads images in random order, and {path} is compressed: set "
                "dataset.cache=true, or unpack the shards to plain .tar files."
            )


def _read_index(
    shards: Shards, reader: ShardReader, progress: Progress | None
) -> dict[str, Listing]:
    """The samples of all shards, by split."""
    done, total = 0, sum(len(files) for files in shards.splits.values())
    listings = {split: Listing() for split in SPLITS}
    for split, files in shards.splits.items():
        for path in files:
            reader.add(listings, split, path)
            done += 1
            if progress is not None:
                progress("reading the index of the shards", done, total)
    reader.splits.refuse_overlooked(str(shards.base))
    return listings
