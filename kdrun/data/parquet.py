"""Parquet files with an image column, as the Hugging Face `datasets` library exports them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.data.containers.listing import Listing
from kdrun.data.containers.parquet_columns import Columns, find_columns
from kdrun.data.containers.parquet_reader import (
    ParquetImage,
    column_bytes,
    column_chunks,
    column_values,
    opened,
)
from kdrun.data.containers.parquet_splits import find_split_column, split_of_rows
from kdrun.data.containers.paths import PathResolver
from kdrun.data.containers.read import read_shards
from kdrun.data.containers.shards import Shards, find_shards
from kdrun.data.containers.split_columns import Names
from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.images import SPLITS, RawDataset
from kdrun.data.tree import changed_at
from kdrun.errors import DataError


@takes_options()
def parquet(
    *,
    root: str | list[str] | None = None,
    train: Names = None,
    val: Names = None,
    test: Names = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | bool | None = None,
    class_names: str | list[str] | None = None,
    num_classes: int | None = None,
    options: ReadOptions,
) -> RawDataset:
    """The images in Parquet files, in the order of the files and their rows.

    root: a folder with `train-00000-of-00002.parquet` and so on, a file, or patterns. train, val,
    test: the files of each split, if their names do not tell.
    image_column, label_column: None selects the only candidate. Images are encoded files (binary,
    or a struct with `bytes`) or paths below the folder.
    split_column: the split of each row, in files that are all training files by name; False ignores
    it. See `parquet_splits.find_split_column`.
    class_names, num_classes: for numeric labels without names in the file; see
    `classes.numbered_classes`.
    options: see `ReadOptions`. `cache=false` decodes rows on every access; in the random order of
    an epoch it reads every row group many times.

    Raises DataError for unusable files, ConfigError for an invalid setting.
    """
    splits = {"train": train, "val": val, "test": test}
    shards = find_shards(root, splits, (".parquet",), options.follow_links)
    reader = _Reader(shards, image_column, label_column, split_column, options.follow_links)
    listings = reader.read()
    return read_shards(
        shards,
        listings,
        repr((reader.columns, shards.relative_files())) + (reader.split_of_rows or ""),
        reader.notes(),
        options,
        split_setting=split_column,
        class_names=class_names,
        num_classes=num_classes,
        stored_names=None if reader.columns is None else reader.columns.names,
    )


@dataclass
class _Reader:
    """Reads the labels of all files and the position of each image."""

    shards: Shards
    image_column: str | None
    label_column: str | None
    split_column: str | bool | None
    follow_links: bool
    columns: Columns | None = None
    split_of_rows: str | None = None  # the column of splits that is read

    def read(self) -> dict[str, Listing]:
        """All rows, by split."""
        self.split_of_rows = find_split_column(self.shards, self.split_column)
        listings = {split: Listing() for split in SPLITS}
        for split, files in self.shards.splits.items():
            for path in files:
                self._add(listings, split, path)
        return listings

    def _add(self, listings: dict[str, Listing], split: str, path: Path) -> None:
        state = path.stat()
        with opened(path) as file:
            columns = self._check_columns(file.schema_arrow, path)
            labels = list(_labels(file, columns.label, path))
            splits = [split] * len(labels)
            if self.split_of_rows is not None:
                splits = list(split_of_rows(file, self.split_of_rows, path))
            rows = list(zip(labels, (listings[split] for split in splits), strict=True))
            size = column_bytes(file.metadata, columns.image) // max(1, len(labels))
            if columns.as_path or _has_paths_only(file.metadata, columns.image):
                self._add_paths(rows, file, columns, path)
                return
        place = str(path)
        for number, (label, listing) in enumerate(rows):
            source = ParquetImage(place, columns.image, number)
            listing.add(source, label, size, changed_at(state))

    def _check_columns(self, schema: Any, path: Path) -> Columns:
        """The columns of one file. Raises DataError if they differ from those of earlier files."""
        columns = find_columns(schema, self.image_column, self.label_column, str(path))
        if self.columns is not None and columns != self.columns:
            raise DataError(
                f"{path} differs from earlier files in its image or label column, or in its class "
                "names: read one kind of file at a time and set dataset.root to it."
            )
        self.columns = columns
        return columns

    def _add_paths(
        self, rows: list[tuple[str, Listing]], file: Any, columns: Columns, path: Path
    ) -> None:
        """Append images that are stored as paths below the data set's folder.

        rows: label and listing of each.
        """
        column = columns.image if columns.as_path else f"{columns.image}.path"
        resolver = PathResolver(self.shards.base, str(path), "", self.follow_links)
        values = column_values(file, column)
        for number, ((label, listing), value) in enumerate(zip(rows, values, strict=True), 1):
            text = value.get("path") if isinstance(value, dict) else value
            if not text:
                raise DataError(f"{path}, row {number}: the image is missing.")
            image = resolver.resolve(text, f"row {number}")
            if image is not None:
                listing.add(image.path, label, image.size, image.time)
        resolver.check_missing(len(rows))

    def notes(self) -> list[str]:
        """Files and columns, for the user."""
        assert self.columns is not None
        splits = f", splits from column {self.split_of_rows!r}" if self.split_of_rows else ""
        return [
            f"{self.shards.base.name}: {self.shards.described()}; images from column "
            f"{self.columns.image!r}, labels from column {self.columns.label!r}{splits}."
        ]


def _labels(file: Any, column: str, path: Path) -> Iterator[str]:
    """The labels as text. Raises DataError for missing labels and other types."""
    for row, value in enumerate(column_values(file, column), 1):
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas stores integers with missing values as floats
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "" or value != value:
            raise DataError(
                f"{path}, row {row}: column {column!r} has no label: label the rows, or set "
                "dataset.train and dataset.test to other files."
            )
        if not isinstance(value, str | int):
            raise DataError(
                f"{path}: column {column!r} holds {type(value).__name__} values, not class numbers "
                "or names: set dataset.label_column."
            )
        yield str(value)


def _has_paths_only(metadata: Any, column: str) -> bool:
    """Whether a struct column stores no bytes at all, by the file's statistics."""
    parts = [
        (rows, chunk.statistics)
        for rows, chunk in column_chunks(metadata)
        if chunk.path_in_schema == f"{column}.bytes"
    ]
    return bool(parts) and all(
        statistics is not None and statistics.has_null_count and statistics.null_count >= rows
        for rows, statistics in parts
    )
