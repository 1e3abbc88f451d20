"""Find the delimiter, the header and the columns of a table."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.containers.split_columns import SPLIT_COLUMNS
from kdrun.data.containers.table_text import Rows, read_text
from kdrun.data.decoding.formats import image_extensions
from kdrun.data.text import abbreviate, alphanumeric
from kdrun.errors import ConfigError, DataError, did_you_mean

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
# Usual names, `alphanumeric`. Names in a second set may also mean row numbers or ids, so they count
# only if no name of the first set matches.
PATHS = (
    {
        "path", "paths", "filepath", "filepaths", "imagepath", "imgpath", "relativepath", "relpath",
        "filename", "filenames", "imagefilename", "imagefile", "file", "files", "image", "images",
        "img", "imagename", "imgname", "picture", "photo",
    },
    {"imageid", "imgid", "id", "name"},
)  # fmt: skip
LABELS = (
    {
        "label", "labels", "class", "classes", "classname", "classlabel", "target", "targets",
        "category", "categories", "categoryname", "labelname",
    },
    {
        *(f"{what}{number}" for what in ("class", "label", "category", "target")
          for number in ("id", "idx", "index", "no", "num", "number")),
        "y",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """Format of a table; None means detect.

    delimiter: a character or a name in `DELIMITERS`. header: whether the first line names the
    columns.
    """

    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True


@dataclass(frozen=True)
class ColumnChoice:
    """Columns that the user names, by name or number from 1. None means detect.

    split: False ignores splits.
    """

    path: str | int | None = None
    label: str | int | None = None
    split: str | int | bool | None = None


@dataclass(frozen=True)
class Columns:
    """Positions, from 0, of the columns to read, and the names of all columns."""

    path: int
    label: int
    split: int | None
    names: tuple[str, ...]

    @property
    def split_name(self) -> str:
        """Name of the split column; empty without one."""
        return "" if self.split is None else self.names[self.split]

    def described(self) -> str:
        """`paths from column 'path', labels from column 'label'`."""
        parts = [("paths", self.path), ("labels", self.label)]
        parts += [("splits", self.split)] if self.split is not None else []
        return ", ".join(f"{what} from column {self.names[number]!r}" for what, number in parts)


def open_table(path: Path, settings: Format, choice: ColumnChoice) -> tuple[Columns, Rows]:
    """The columns and rows of a table. Raises DataError or ConfigError for an unusable one."""
    text, first_line = read_text(path, settings.encoding)
    delimiter = _delimiter(text, path, settings, choice)
    rows = Rows(text, delimiter, path, first_line)
    first = next(iter(rows), None)
    if first is None:
        raise DataError(f"{path} is empty.")
    names = [name.strip() for name in first[1]]
    if not settings.header:
        _refuse_header(names, path)
        choice = ColumnChoice(
            1 if choice.path is None else choice.path,
            2 if choice.label is None else choice.label,
            choice.split if choice.split is not None or len(names) < 3 else 3,
        )
        names = [str(number) for number in range(1, len(names) + 1)]
        rows = Rows(text, delimiter, path, first_line)
    return _Header(path, names, settings.header).columns(choice), rows


def _delimiter(text: str, path: Path, settings: Format, choice: ColumnChoice) -> str:
    """The delimiter: as set, by the file's extension, or the one that yields most known columns."""
    if settings.delimiter is not None:
        name = {"\\t": "tab"}.get(settings.delimiter, settings.delimiter)
        chosen = DELIMITERS.get(name.strip().lower(), name)
        if len(chosen) != 1 or chosen in '"\r\n':
            raise ConfigError(
                f"dataset.delimiter={settings.delimiter!r} must be one character or one of "
                f"{', '.join(DELIMITERS)}."
            )
        return chosen
    line = next((line for line in text.splitlines() if line.strip()), "")
    if path.suffix.lower() in (".tsv", ".tab") and "\t" in line:
        return "\t"
    chosen_names = (choice.path, choice.label)
    named = {alphanumeric(str(name)) for name in chosen_names if name is not None}
    known = named.union(*PATHS, *LABELS)
    scores = {}
    for delimiter in (",", ";", "\t", "|"):
        try:
            fields = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        scores[delimiter] = (sum(alphanumeric(name) in known for name in fields), len(fields))
    best = max(scores, key=lambda delimiter: scores[delimiter], default=",")
    if scores and scores[best][1] < 2 and len(line.split()) > 1 and not settings.header:
        return " "  # `image.jpg 3`, the format of Caffe's lists
    return best


@dataclass(frozen=True)
class _Header:
    """The names of a table's columns. given: its first line holds them; else they are numbers."""

    path: Path
    names: list[str]
    given: bool

    def columns(self, choice: ColumnChoice) -> Columns:
        """The columns to read."""
        image = self._required("path", choice.path, PATHS)
        label = self._required("label", choice.label, LABELS)
        split = None
        if choice.split is not False:
            chosen = None if choice.split is True else choice.split
            split = self._find("split", chosen, SPLIT_COLUMNS)
            if chosen is None and split in (image, label):
                split = None
        used = [position for position in (image, label, split) if position is not None]
        if len(set(used)) < len(used):
            raise ConfigError(
                f"{self.path}: a column is used twice ({self.names[image]!r} for paths, "
                f"{self.names[label]!r} for labels); set dataset.path_column, dataset.label_column "
                "and dataset.split_column."
            )
        return Columns(image, label, split, tuple(self.names))

    def _required(self, what: str, chosen: str | int | None, usual: Sequence[set[str]]) -> int:
        """`_find`, and DataError for no match."""
        position = self._find(what, chosen, usual)
        if position is not None:
            return position
        listed = self._listed()
        if self.given and _looks_like_data(self.names):
            raise DataError(
                f"{self.path} has no header (its first line is {listed}): set "
                "dataset.header=false, which reads the path from column 1 and the label from "
                "column 2, or add a line 'path,label'."
            )
        if len(self.names) == 1:
            raise DataError(
                f"{self.path} has one column ({listed}): set dataset.delimiter to the character "
                "between columns."
            )
        raise DataError(
            f"{self.path} has no column named {what} (it has {listed}): set "
            f"dataset.{what}_column=NAME, or dataset.header=false if its first line is data."
        )

    def _find(self, what: str, chosen: str | int | None, usual: Sequence[set[str]]) -> int | None:
        """Position of the column that the user chose, or of the only one with a usual name."""
        key = f"dataset.{what}_column"
        if chosen is not None:
            return self._chosen(chosen, key)
        for known in usual:
            matches = [at for at, name in enumerate(self.names) if alphanumeric(name) in known]
            if len(matches) == 1:
                return matches[0]
            if matches:
                options = ", ".join(f"'{key}={self._name_or_number(at)}'" for at in matches)
                raise DataError(
                    f"{self.path} has several columns of {what}s: set one of {options}."
                )
        return None

    def _chosen(self, chosen: str | int, key: str) -> int:
        plain = alphanumeric(str(chosen))
        exact = [at for at, name in enumerate(self.names) if name == str(chosen)]
        loose = [at for at, name in enumerate(self.names) if alphanumeric(name) == plain]
        for matches in (exact, loose):
            if len(matches) == 1:
                return matches[0]
        if isinstance(chosen, int) and 1 <= chosen <= len(self.names):
            return chosen - 1
        hint = did_you_mean(str(chosen), self.names)
        raise ConfigError(
            f"{key}={chosen}: {self.path} has no such column.{hint} It has: {self._listed()}."
        )

    def _listed(self) -> str:
        return abbreviate([repr(name) for name in self.names], 12)

    def _name_or_number(self, at: int) -> str | int:
        return self.names[at] if self.names.count(self.names[at]) == 1 else at + 1


def is_class_header(name: str) -> bool:
    """Whether a line looks like the header of a list of classes (`id,class name`)."""
    words = {alphanumeric(word) for word in re.split(r"[,;\t]", name)}
    labels = LABELS[0] | LABELS[1] | {"name", "names"}
    return bool(words & labels) and words <= labels | {"id", "index", "idx", "no", "number", ""}


def is_class_number_name(name: str) -> bool:
    """Whether columns of this name usually hold class numbers."""
    return alphanumeric(name) in LABELS[1]


def _looks_like_data(names: list[str]) -> bool:
    """Whether a first line contains a file name and is thus no header."""
    endings = image_extensions()
    return any("." in name and f".{name.rsplit('.', 1)[-1].lower()}" in endings for name in names)


def _refuse_header(names: list[str], path: Path) -> None:
    known = {alphanumeric(name) for name in names}
    if known & PATHS[0] and known & LABELS[0]:
        raise ConfigError(
            f"dataset.header=false, but the first line of {path} names the columns "
            f"({abbreviate(names, 12)}): leave dataset.header out."
        )
