"""Columns of tables and Parquet files, and keys of JSON files, that hold the split of each image.

They are recognised by name (`split`, `is_valid`) or, if no setting names them, by their values.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kdrun.data.folders.split_names import SPLIT_OF, plain_split, split_name
from kdrun.data.text import abbreviate, alphanumeric
from kdrun.errors import DataError

Names = str | list[str] | None

# Columns of yes and no, as fastai writes them → the splits of the rows with yes and with no.
FLAGS = {
    **dict.fromkeys(("isvalid", "isvalidation", "isval"), ("val", "train")),
    "istest": ("test", "train"),
    **dict.fromkeys(("istrain", "istraining", "istrainingimage"), ("train", "test")),
}
# Usual names, `alphanumeric`. A flag counts only if no column has a name of the first set.
SPLIT_COLUMNS = (
    {
        "split", "splits", "subset", "partition", "dataset", "set", "fold", "datasplit",
        "splitname", "phase", "usage", "traintest", "traintestsplit", "trainvaltest",
    },
    set(FLAGS),
)  # fmt: skip
YES, NO = ("true", "1", "1.0", "yes", "t", "y"), ("false", "0", "0.0", "no", "f", "n")
WORD = re.compile(r"[^\W\d_]+([_ -]?[^\W_]+)?")  # one word or two, no path
MOST_OTHERS = 3  # different values that name no split, in a column that still tells the splits


def is_split_name(name: str) -> bool:
    """Whether columns of this name usually hold splits: their names, or yes and no."""
    return any(alphanumeric(name) in names for names in SPLIT_COLUMNS)


def is_surely_split_name(name: str) -> bool:
    """Whether columns of this name hold nothing but splits."""
    return is_split_name(name) and ("split" in name.lower() or "partition" in name.lower())


def flag_splits(name: str) -> tuple[str, str] | None:
    """The splits of the rows with yes and with no, if a column of this name holds yes and no.

    `is_valid` → val and train; a bare `train` → train and test. None for other names.
    """
    if (usual := FLAGS.get(alphanumeric(name))) is not None:
        return usual
    split = plain_split(name)
    return None if split is None else (split, "test" if split == "train" else "train")


def last_part(name: str) -> str:
    """`subset` of the nested key `meta.subset`."""
    return name.rsplit(".", 1)[-1]


class SplitValues:
    """The splits that the values of one column name.

    column: its name, or a nested key; in one named like a flag (`is_valid`) the values are yes and
        no.
    custom: split → the user's names, which replace the usual ones of that split.
    Raises DataError if the user gives one name to two splits.
    """

    def __init__(self, column: str, custom: Mapping[str, Names] | None = None) -> None:
        custom = custom or {}
        self._named = {split for split, names in custom.items() if names is not None}
        flags = flag_splits(last_part(column))
        usual = SPLIT_OF if flags is None else _yes_and_no(*flags)
        self._known = {name: split for name, split in usual.items() if split not in self._named}
        for split, names in custom.items():
            for name in _as_list(names):
                if self._known.setdefault(_folded(name), split) != split:
                    raise DataError(f"dataset.{split}={name} already names another split.")

    def find(self, value: object) -> str | None:
        """The split that `value` names; None if it names none."""
        if (split := self._known.get(_folded(value))) is not None:
            return split
        split = plain_split(str(value))
        return None if split in self._named else split

    def refuse(self, unknown: Mapping[str, int], where: str) -> None:
        """Raise DataError if there are values that name no split. unknown: value → its count."""
        if not unknown:
            return
        shown = [
            f"{name!r} ({count:,})" if name else f"empty ({count:,})"
            for name, count in unknown.items()
        ]
        raise DataError(
            f"{where}: unknown split {abbreviate(shown, 10)}: known names are "
            f"{', '.join(sorted(self._known))}; set dataset.train, dataset.val or dataset.test to "
            "other names, or dataset.split_column=false to ignore the column and hold out test "
            "images."
        )


def _yes_and_no(yes: str, no: str) -> dict[str, str]:
    return dict.fromkeys(YES, yes) | dict.fromkeys(NO, no)


def _as_list(names: Names) -> Iterator[str]:
    if names is not None:
        yield from [names] if isinstance(names, str | int) else names


def _folded(value: object) -> str:
    return str(value).strip().casefold()


@dataclass
class SplitEvidence:
    """Whether a column or key tells the splits although no setting names it, from its values.

    name: of the column or key. find: the split that a value names, or None; asked before the usual
    names.
    """

    name: str
    find: Callable[[str], str | None] | None = None
    splits: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    named: int = 0
    rows: int = 0
    contradicts: bool = False  # holds out a row that is a training image by what is read

    def __post_init__(self) -> None:
        self._usual = SplitValues(self.name)
        self._known: dict[str, str | None] = {}  # values are few, or the column is dropped

    def add(self, value: object, used: str | None = "train") -> None:
        """Look at the value of one row, whose split is read as `used`."""
        text = "" if value is None else str(value).strip()
        if text not in self._known:
            self._known[text] = self._split_of(text)
        split = self._known[text]
        self.rows += 1
        if split is None:
            self.others.add(text)
        else:
            self.named += 1
            self.splits.add(split)
            self.contradicts |= used == "train" != split

    def _split_of(self, text: str) -> str | None:
        split = self.find(text) if self.find is not None else None
        split = split or self._usual.find(text)
        if split is None and WORD.fullmatch(text) and (match := split_name(text)) is not None:
            return match.split  # PublicTest
        return split

    @property
    def is_possible(self) -> bool:
        """Whether the values so far are few, or names of splits."""
        return len(self.others) <= MOST_OTHERS

    @property
    def tells(self) -> bool:
        """Whether most values name a split, and train is one of several."""
        return (
            self.is_possible
            and len(self.splits) > 1
            and "train" in self.splits
            and 4 * self.named >= 3 * self.rows
        )

    @property
    def must_be_read(self) -> bool:
        """Whether it tells the splits, or is called `split` and holds several values."""
        several = self.is_possible and len(self.splits) + len(self.others) > 1
        return self.tells or (several and is_surely_split_name(last_part(self.name)))
