"""A table of image paths and labels (CSV, TSV) as a data set."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.data.class_order import NATURAL
from kdrun.data.containers.classes import NO_LABEL, classes_in_order
from kdrun.data.containers.listing import Listing, as_tree, select_splits, sorted_by_class
from kdrun.data.containers.paths import File, PathResolver
from kdrun.data.containers.split_columns import Names, SplitValues
from kdrun.data.containers.table_columns import ColumnChoice, Columns, Format, open_table
from kdrun.data.containers.table_text import Rows
from kdrun.data.containers.unused_columns import UnusedColumns
from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.decoding.read import read_images
from kdrun.data.images import SPLITS, RawDataset
from kdrun.data.measure import Progress
from kdrun.data.text import abbreviate
from kdrun.errors import DataError


@takes_options()
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
    options: ReadOptions,
) -> RawDataset:
    """The images listed in a table, one row each: path, label and, optionally, split.

    Images are sorted by class, then path, as in an image folder.

    file: the table. root: folder that paths are relative to; None: the folder of the table.
    path_column, label_column, split_column: by name, or by number from 1; None finds the usual
    names. split_column=False ignores splits.
    extension: appended to every path (`.jpg` if the table lists ids).
    delimiter, encoding, header: see `table_columns.Format`.
    train, val, test: names of the splits in the split column, besides the usual ones.
    options: see `ReadOptions`.

    Raises DataError for an unusable table or image, ConfigError for an invalid setting.
    """
    path = Path(file).expanduser().absolute()
    choice = ColumnChoice(path_column, label_column, split_column)
    columns, rows = open_table(path, Format(delimiter, encoding, header), choice)
    base = path.parent if root is None else Path(root).expanduser().absolute()
    if not base.is_dir():
        raise DataError(f"dataset.root={base} is not a folder.")
    extension = _with_dot(extension)
    custom = {"train": train, "val": val, "test": test}
    split_values = SplitValues(columns.split_name, custom)
    resolver = PathResolver(base, str(path), extension, options.follow_links)
    unused = UnusedColumns(path, columns, split_values.find, watch_splits=split_column is None)
    reader = _Reader(path, columns, resolver, split_values, unused)
    listings = reader.read(rows, options.progress)
    splits, split_notes = select_splits(listings, str(path), base if split_column is None else None)
    labels = {label for listing in splits.values() for label in listing.labels}
    classes, class_notes = classes_in_order(labels, str(path), options.class_order)
    if options.class_order == NATURAL:
        class_notes += unused.order_notes(classes)
    splits = {name: sorted_by_class(listing, classes) for name, listing in splits.items()}
    tree = as_tree(base, f"{path} {extension}", splits, classes, str(path))
    return read_images(tree, options, [*reader.notes(rows), *split_notes, *class_notes])


@dataclass
class _Reader:
    """Reads the rows of a table into listings."""

    path: Path
    columns: Columns
    resolver: PathResolver
    split_values: SplitValues
    unused: UnusedColumns
    first_rows: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # label, split, line
    repeated: int = 0
    blank: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)  # lines whose label is a word for none
    unknown: dict[str, int] = field(default_factory=dict)  # split name → count

    def read(self, rows: Rows, progress: Progress | None) -> dict[str, Listing]:
        """All rows, by split. Raises DataError with line numbers for unusable rows."""
        listings = {name: Listing() for name in SPLITS}
        total = 0
        for line, fields in rows:
            total += 1
            name, label = (
                fields[column].strip() for column in (self.columns.path, self.columns.label)
            )
            if not name:
                raise DataError(f"{self.path}, line {line}: the path is empty.")
            if not label:
                self.blank.append(line)
                continue
            if label.casefold() in NO_LABEL:
                self.missing.append(line)
            split = self._split(fields)
            self.unused.add(fields, label, split)
            file = self.resolver.resolve(name, f"line {line}")
            if file and split and self._is_new(file, label, split, line):
                listings[split].add(file.path, label, file.size, file.time)
            if progress is not None and total % 10_000 == 0:
                progress("looking for the listed images", total, total)
        if total == 0:
            raise DataError(f"{self.path} lists no images.")
        self.unused.refuse_splits()
        if self.missing and _are_numbers(listings):
            self.blank += self.missing
        self._check_blank(total)
        where = f"{self.path}, column {self.columns.split_name!r}"
        self.split_values.refuse(self.unknown, where)
        self.resolver.check_missing(total)
        return listings

    def _split(self, fields: list[str]) -> str | None:
        if self.columns.split is None:
            return "train"
        name = fields[self.columns.split].strip()
        split = self.split_values.find(name)
        if split is None:
            self.unknown[name] = self.unknown.get(name, 0) + 1
        return split

    def _is_new(self, file: File, label: str, split: str, line: int) -> bool:
        """Whether a file is listed for the first time. Raises DataError for conflicting rows."""
        if file.path not in self.first_rows:
            self.first_rows[file.path] = label, split, line
            return True
        first_label, first_split, first_line = self.first_rows[file.path]
        if first_label != label:
            raise DataError(
                f"{self.path}: {file.path} is labelled {first_label!r} in line {first_line} and "
                f"{label!r} in line {line}: keep one of them."
            )
        if first_split != split:
            raise DataError(
                f"{self.path}: {file.path} is in the {first_split} split in line {first_line} and "
                f"in the {split} split in line {line}: keep one of them."
            )
        self.repeated += 1
        return False

    def _check_blank(self, total: int) -> None:
        if self.blank:
            lines = abbreviate(self.blank, 10)
            raise DataError(
                f"{self.path}: {len(self.blank):,} of {total:,} rows have no label (line {lines}): "
                "label them, or remove them from the table."
            )

    def notes(self, rows: Rows) -> list[str]:
        """Columns and skipped rows, for the user."""
        notes = [f"{self.path.name}: {self.columns.described()}."]
        if rows.empty:
            notes.append(f"{self.path.name}: {rows.empty:,} empty rows were skipped.")
        if self.repeated:
            notes.append(
                f"{self.path.name}: {self.repeated:,} rows repeat an image with the same label; "
                "each image is read once."
            )
        return notes


def _are_numbers(listings: dict[str, Listing]) -> bool:
    """Whether all labels are numbers, but for the words for none."""
    labels = {label for listing in listings.values() for label in listing.labels}
    return all(_is_number(label) for label in labels if label.casefold() not in NO_LABEL)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _with_dot(extension: str) -> str:
    return f".{extension}" if extension and not extension.startswith(".") else extension
