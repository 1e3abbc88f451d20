"""Find the delimiter, the header and the columns of a table."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.containers.table_text import Rows, read_text
from kdrun.data.decoding.formats import image_extensions
from kdrun.data.folders.split_names import split_name
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError, did_you_mean

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
# Normalised names (lower case, letters and digits only). Names in a second set may also mean row
# numbers or ids, so they count only if no name of the first set matches.
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
# Columns of yes and no, as fastai writes them → the splits of the rows with yes and with no.
FLAGS = {
    **dict.fromkeys(("isvalid", "isvalidation", "isval"), ("val", "train")),
    "istest": ("test", "train"),
    **dict.fromkeys(("istrain", "istraining", "istrainingimage"), ("train", "test")),
}
SPLITS = (
    {
        "split", "splits", "subset", "partition", "dataset", "set", "fold", "datasplit",
        "splitname", "phase", "usage", "traintest", "traintestsplit", "trainvaltest",
    },
    set(FLAGS),
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
    def flagged(self) -> tuple[str, str] | None:
        """The splits of yes and no in the split column; None for a column of names."""
        return None if self.split is None else flag_splits(self.names[self.split])

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
        numbered = ColumnChoice(
            1 if choice.path is None else choice.path,
            2 if choice.label is None else choice.label,
            choice.split if choice.split is not None or len(names) < 3 else 3,
        )
        names = [str(number) for number in range(1, len(names) + 1)]
        rows = Rows(text, delimiter, path, first_line)
        return _columns(names, numbered, path, settings), rows
    return _columns(names, choice, path, settings), rows


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
    scores = {}
    for delimiter in (",", ";", "\t", "|"):
        try:
            fields = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        names = [_normal(name) for name in fields]
        named = {_normal(str(name)) for name in (choice.path, choice.label) if name is not None}
        known = named.union(*PATHS, *LABELS)
        scores[delimiter] = (sum(name in known for name in names), len(fields))
    best = max(scores, key=lambda delimiter: scores[delimiter], default=",")
    if scores and scores[best][1] < 2 and len(line.split()) > 1 and not settings.header:
        return " "  # `image.jpg 3`, the format of Caffe's lists
    return best


def _columns(names: list[str], choice: ColumnChoice, path: Path, settings: Format) -> Columns:
    image = _column(names, choice.path, PATHS, "path", path, settings)
    label = _column(names, choice.label, LABELS, "label", path, settings)
    assert image is not None and label is not None  # noqa: PT018 - the required ones
    split = None
    if choice.split is not False:
        chosen = None if choice.split is True else choice.split
        split = _column(names, chosen, SPLITS, "split", path, settings, required=False)
        if chosen is None and split in (image, label):
            split = None
    used = [position for position in (image, label, split) if position is not None]
    if len(set(used)) < len(used):
        raise ConfigError(
            f"{path}: a column is used twice ({names[image]!r} for paths, {names[label]!r} for "
            "labels); set dataset.path_column, dataset.label_column and dataset.split_column."
        )
    return Columns(image, label, split, tuple(names))


def _column(
    names: list[str],
    chosen: str | int | None,
    synonyms: Sequence[set[str]],
    what: str,
    path: Path,
    settings: Format,
    required: bool = True,
) -> int | None:
    """Position of the column that the user chose, or of the only one with a usual name."""
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
    listed = abbreviate([repr(name) for name in names], 12)
    if settings.header and _looks_like_data(names):
        raise DataError(
            f"{path} has no header (its first line is {listed}): set dataset.header=false, which "
            "reads the path from column 1 and the label from column 2, or add a line "
            "'path,label'."
        )
    if len(names) == 1:
        raise DataError(
            f"{path} has one column ({listed}): set dataset.delimiter to the character between "
            "columns."
        )
    raise DataError(
        f"{path} has no column named {what} (it has {listed}): set {key}=NAME, or "
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
        f"{abbreviate([repr(name) for name in names], 12)}."
    )


def _name_or_number(names: list[str], at: int) -> str | int:
    return names[at] if names.count(names[at]) == 1 else at + 1


def names_splits(name: str) -> bool:
    """Whether a column of this name usually holds splits: their names, or yes and no."""
    return any(_normal(name) in names for names in SPLITS)


def is_called_split(name: str) -> bool:
    """Whether a column of this name cannot hold anything but splits."""
    return names_splits(name) and ("split" in name.lower() or "partition" in name.lower())


def flag_splits(name: str) -> tuple[str, str] | None:
    """The splits of the rows with yes and with no, if a column of this name holds yes and no.

    `is_valid` → val and train; a bare `train` → train and test. None for other names.
    """
    if (usual := FLAGS.get(_normal(name))) is not None:
        return usual
    match = split_name(name)
    if match is None or not match.plain:
        return None
    return match.split, "test" if match.split == "train" else "train"


def heads_classes(name: str) -> bool:
    """Whether a line is rather the header of a list of classes than a class (`id,class name`)."""
    words = {_normal(word) for word in re.split(r"[,;\t]", name)}
    labels = LABELS[0] | LABELS[1] | {"name", "names"}
    return bool(words & labels) and words <= labels | {"id", "index", "idx", "no", "number", ""}


def numbers_classes(name: str) -> bool:
    """Whether a column of this name usually holds class numbers."""
    return _normal(name) in LABELS[1]


def _normal(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _looks_like_data(names: list[str]) -> bool:
    """Whether a first line contains a file name and is thus no header."""
    endings = image_extensions()
    return any("." in name and f".{name.rsplit('.', 1)[-1].lower()}" in endings for name in names)


def _refuse_header(names: list[str], path: Path) -> None:
    known = {_normal(name) for name in names}
    if known & PATHS[0] and known & LABELS[0]:
        raise ConfigError(
            f"dataset.header=false, but the first line of {path} names the columns "
            f"({abbreviate(names, 12)}): leave dataset.header out."
        )
