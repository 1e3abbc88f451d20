"""The columns of a table: delimiter, header, and which column holds what."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.containers.listing import abbreviated
from kdrun.data.containers.table_text import Rows, read_text
from kdrun.data.decoding.formats import image_extensions
from kdrun.errors import ConfigError, DataError, did_you_mean

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
# Normalised names (lower case, letters and digits only). Those of the second row of PATHS are also
# used for row numbers and ids, so that they count only where nothing of the first is there.
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
    {"classid", "labelid", "categoryid", "y"},
)  # fmt: skip
SPLITS = ({"split", "splits", "subset", "partition", "dataset", "set", "fold"},)


@dataclass(frozen=True)
class Format:
    """How a table is written. None: found out.

    delimiter: a character or a name of `DELIMITERS`. header: whether the first line names the
    columns.
    """

    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True


@dataclass(frozen=True)
class Wanted:
    """The columns a user names: by name, or by number from 1. None finds them.

    split: False reads no split column.
    """

    path: str | int | None = None
    label: str | int | None = None
    split: str | int | bool | None = None


@dataclass(frozen=True)
class Columns:
    """Positions, from 0, and names of the columns that are read. split: None for none."""

    path: int
    label: int
    split: int | None
    names: tuple[str, ...]

    def described(self) -> str:
        """The columns in words."""
        parts = [("paths", self.path), ("labels", self.label)]
        parts += [("splits", self.split)] if self.split is not None else []
        return ", ".join(f"{what} from column {self.names[at]!r}" for what, at in parts)


def open_table(path: Path, given: Format, wanted: Wanted) -> tuple[Columns, Rows]:
    """The columns of a table and its rows. Raises DataError or ConfigError for an unusable one."""
    text, first_line = read_text(path, given.encoding)
    delimiter = _delimiter(text, path, given, wanted)
    rows = Rows(text, delimiter, path, first_line)
    first = next(iter(rows), None)
    if first is None:
        raise DataError(f"{path} is empty.")
    names = [name.strip() for name in first[1]]
    if not given.header:
        _refuse_header(names, path)
        numbered = Wanted(
            1 if wanted.path is None else wanted.path,
            2 if wanted.label is None else wanted.label,
            wanted.split if wanted.split is not None or len(names) < 3 else 3,
        )
        names = [str(number) for number in range(1, len(names) + 1)]
        rows = Rows(text, delimiter, path, first_line)
        return _columns(names, numbered, path, given), rows
    return _columns(names, wanted, path, given), rows


def _delimiter(text: str, path: Path, given: Format, wanted: Wanted) -> str:
    """The delimiter: as set, by the file's ending, or the one that finds most columns."""
    if given.delimiter is not None:
        name = {"\\t": "tab"}.get(given.delimiter, given.delimiter)
        chosen = DELIMITERS.get(name.strip().lower(), name)
        if len(chosen) != 1 or chosen in '"\r\n':
            raise ConfigError(
                f"dataset.delimiter={given.delimiter!r} must be one character or one of "
                f"{', '.join(DELIMITERS)}."
            )
        return chosen
    line = next((line for line in text.splitlines() if line.strip()), "")
    if path.suffix.lower() in (".tsv", ".tab") and "\t" in line:
        return "\t"
    scores = {}
    for delimiter in (",", ";", "\t", "|"):
        try:
            fields = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        names = [_normal(name) for name in fields]
        named = {_normal(str(name)) for name in (wanted.path, wanted.label) if name is not None}
        known = named.union(*PATHS, *LABELS)
        scores[delimiter] = (sum(name in known for name in names), len(fields))
    best = max(scores, key=lambda delimiter: scores[delimiter], default=",")
    if scores and scores[best][1] < 2 and len(line.split()) > 1 and not given.header:
        return " "  # `image.jpg 3`, the lists of Caffe
    return best


def _columns(names: list[str], wanted: Wanted, path: Path, given: Format) -> Columns:
    image = _column(names, wanted.path, PATHS, "path", path, given)
    label = _column(names, wanted.label, LABELS, "label", path, given)
    assert image is not None and label is not None  # noqa: PT018 - the required ones
    split = None
    if wanted.split is not False:
        chosen = None if wanted.split is True else wanted.split
        split = _column(names, chosen, SPLITS, "split", path, given, required=False)
    used = [position for position in (image, label, split) if position is not None]
    if len(set(used)) < len(used):
        raise ConfigError(
            f"{path}: one column is chosen twice ({names[image]!r} for paths, {names[label]!r} for "
            "labels); set dataset.path_column, dataset.label_column and dataset.split_column."
        )
    return Columns(image, label, split, tuple(names))


def _column(
    names: list[str],
    chosen: str | int | None,
    synonyms: Sequence[set[str]],
    what: str,
    path: Path,
    given: Format,
    required: bool = True,
) -> int | None:
    """The position of the column that was chosen, or whose name is one of the usual ones."""
    key = f"dataset.{what}_column"
    if chosen is not None:
        return _chosen(names, chosen, key, path)
    for row in synonyms:
        matches = [position for position, name in enumerate(names) if _normal(name) in row]
        if len(matches) == 1:
            return matches[0]
        if matches:
            options = ", ".join(f"'{key}={_name_or_number(names, at)}'" for at in matches)
            raise DataError(f"{path} has several columns of {what}s: set one of {options}.")
    if not required:
        return None
    there = abbreviated([repr(name) for name in names], 12)
    if given.header and _looks_like_data(names):
        raise DataError(
            f"{path} has no header (its first line is {there}): set dataset.header=false, which "
            "reads the path from column 1 and the label from column 2, or add a line "
            "'path,label'."
        )
    if len(names) == 1:
        raise DataError(
            f"{path} has one column ({there}): set dataset.delimiter to what separates the columns."
        )
    raise DataError(
        f"{path} has no column named {what} (it has {there}): set {key}=NAME, or "
        "dataset.header=false if its first line is data."
    )


def _chosen(names: list[str], chosen: str | int, key: str, path: Path) -> int:
    exact = [position for position, name in enumerate(names) if name == str(chosen)]
    loose = [
        position for position, name in enumerate(names) if _normal(name) == _normal(str(chosen))
    ]
    for matches in (exact, loose):
        if len(matches) == 1:
            return matches[0]
    if isinstance(chosen, int) and 1 <= chosen <= len(names):
        return chosen - 1
    hint = did_you_mean(str(chosen), names)
    raise ConfigError(
        f"{key}={chosen}: {path} has no such column.{hint} It has: "
        f"{abbreviated([repr(name) for name in names], 12)}."
    )


def _name_or_number(names: list[str], at: int) -> str | int:
    return names[at] if names.count(names[at]) == 1 else at + 1


def _normal(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _looks_like_data(names: list[str]) -> bool:
    """Whether a first line holds a file name where a header has column names."""
    endings = image_extensions()
    return any("." in name and f".{name.rsplit('.', 1)[-1].lower()}" in endings for name in names)


def _refuse_header(names: list[str], path: Path) -> None:
    known = {_normal(name) for name in names}
    if known & PATHS[0] and known & LABELS[0]:
        raise ConfigError(
            f"dataset.header=false, but the first line of {path} names the columns "
            f"({abbreviated(names, 12)}): leave dataset.header out."
        )
