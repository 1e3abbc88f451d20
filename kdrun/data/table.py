"""A table of image paths and labels (CSV, TSV) as a data set."""

from dataclasses import dataclass, field
from pathlib import Path

from kdrun.data.class_order import NATURAL, ClassOrder
from kdrun.data.containers.listing import (
    Listing,
    abbreviated,
    as_tree,
    classes_in_order,
    settle_splits,
    sorted_by_class,
)
from kdrun.data.containers.paths import File, PathResolver
from kdrun.data.containers.read import Reading, read_listed
from kdrun.data.containers.split_values import Names, SplitNames
from kdrun.data.containers.table_columns import Columns, Format, Rows, Wanted, open_table
from kdrun.data.imagefolder import BeforeDecoding, read_settings
from kdrun.data.images import RawDataset
from kdrun.data.measure import Progress
from kdrun.data.splits import TEST_FRACTION
from kdrun.errors import DataError


def table(
    *,
    file: str,
    root: str | None = None,
    path_column: str | int | None = None,
    label_column: str | int | None = None,
    split_column: str | int | bool | None = None,
    extension: str = "",
    delimiter: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    train: Names = None,
    val: Names = None,
    test: Names = None,
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
    """The images a table lists, one row each: path, label and, optionally, split.

    file: the table. root: folder the paths are relative to; None: the table's own.
    path_column, label_column, split_column: by name, or by number from 1; None finds the usual
    names. split_column=False reads no splits.
    extension: appended to every path (`.jpg` where the table lists ids).
    delimiter, encoding, header: how the table is written; see `table_columns.Format`.
    train, val, test: what the split column calls them, beside the usual names.
    Other arguments: as for `imagefolder`, whose order (class, then path) the images have.

    Raises DataError for a table or image that cannot be used, ConfigError for a wrong setting.
    """
    layout = _Layout(
        Path(file).expanduser().absolute(),
        None if root is None else Path(root).expanduser().absolute(),
        Wanted(path_column, label_column, split_column),
        Format(delimiter, encoding, header),
        _with_dot(extension),
        (train, val, test),
        follow_links,
        class_order,
    )
    files = read_settings(image_size, channels, background, value_range, skip_broken)
    where = (cache, cache_root, progress, before_decoding)
    reading = Reading(files, test_fraction, split_seed, *where)
    return _read(layout, reading)


@dataclass(frozen=True)
class _Layout:
    """Where a table is and how it is laid out; the arguments of `table`."""

    path: Path
    root: Path | None
    wanted: Wanted
    format: Format
    extension: str
    split_names: tuple[Names, Names, Names]
    follow_links: bool
    class_order: ClassOrder


def _read(layout: _Layout, reading: Reading) -> RawDataset:
    path = layout.path
    columns, rows = open_table(path, layout.format, layout.wanted)
    base = path.parent if layout.root is None else layout.root
    if not base.is_dir():
        raise DataError(f"dataset.root={base} is not a folder.")
    split_column = "" if columns.split is None else columns.names[columns.split]
    reader = _Reader(
        path,
        columns,
        PathResolver(base, str(path), layout.extension, layout.follow_links),
        SplitNames(f"{path}, column {split_column!r}", *layout.split_names),
    )
    listings = reader.read(rows, reading.progress)
    splits, notes = settle_splits(listings, str(path))
    labels = {label for listing in splits.values() for label in listing.labels}
    classes, more = classes_in_order(labels, str(path), layout.class_order)
    splits = {name: sorted_by_class(listing, classes) for name, listing in splits.items()}
    tree = as_tree(base, f"{path} {layout.extension}", splits, classes, str(path))
    return read_listed(tree, [*reader.notes(rows), *notes, *more], reading)


@dataclass
class _Reader:
    """Reads the rows of a table into listings."""

    path: Path
    columns: Columns
    resolver: PathResolver
    split_names: SplitNames
    seen: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # → label, split, line
    repeated: int = 0
    blank: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)  # split names, how often

    def read(self, rows: Rows, progress: Progress | None) -> dict[str, Listing]:
        """All rows, by split. Raises DataError for rows that cannot be used, with their lines."""
        listings = {name: Listing() for name in ("train", "val", "test")}
        total = 0
        for line, fields in rows:
            total += 1
            name, label = (fields[at].strip() for at in (self.columns.path, self.columns.label))
            if not name:
                raise DataError(f"{self.path}, line {line}: the path is empty.")
            if not label:
                self.blank.append(line)
                continue
            split = self._split(fields)
            file = self.resolver.resolve(name, f"line {line}")
            if file and split and self._is_new(file, label, split, line):
                listings[split].add(file.path, label, file.size, file.time)
            if progress is not None and total % 10_000 == 0:
                progress("looking for the listed images", total, total)
        if total == 0:
            raise DataError(f"{self.path} lists no images.")
        self._check_blank(total)
        self.split_names.refuse(
            self.unknown, "dataset.split_column=false to ignore the column and hold out test images"
        )
        self.resolver.check_missing(total)
        return listings

    def _split(self, fields: list[str]) -> str | None:
        if self.columns.split is None:
            return "train"
        name = fields[self.columns.split].strip()
        split = self.split_names.find(name)
        if split is None:
            self.unknown[name] = self.unknown.get(name, 0) + 1
        return split

    def _is_new(self, file: File, label: str, split: str, line: int) -> bool:
        """Whether a file is listed for the first time; DataError when its labels differ."""
        if (before := self.seen.get(file.path)) is None:
            self.seen[file.path] = label, split, line
            return True
        if before[0] != label:
            raise DataError(
                f"{self.path}: {file.path} is labelled {before[0]!r} in line {before[2]} and "
                f"{label!r} in line {line}: keep one of them."
            )
        if before[1] != split:
            raise DataError(
                f"{self.path}: {file.path} is in the {before[1]} split in line {before[2]} and in "
                f"the {split} split in line {line}: keep one of them."
            )
        self.repeated += 1
        return False

    def _check_blank(self, total: int) -> None:
        if self.blank:
            lines = abbreviated(self.blank, 10)
            raise DataError(
                f"{self.path}: {len(self.blank):,} of {total:,} rows have no label (line {lines}): "
                "label them, or remove them from the table."
            )

    def notes(self, rows: Rows) -> list[str]:
        """What was read, and what was left out."""
        notes = [f"{self.path.name}: {self.columns.described()}."]
        if rows.empty:
            notes.append(f"{self.path.name}: {rows.empty:,} empty rows were skipped.")
        if self.repeated:
            notes.append(
                f"{self.path.name}: {self.repeated:,} rows repeat an image with the same label; "
                "each image is read once."
            )
        return notes


def _with_dot(extension: str) -> str:
    return f".{extension}" if extension and not extension.startswith(".") else extension
