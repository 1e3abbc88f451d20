"""Whether a column or key tells the splits although no setting names it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from kdrun.data.containers.split_values import SplitValues
from kdrun.data.containers.table_columns import flag_splits, is_called_split
from kdrun.data.folders.split_names import split_name

WORD = re.compile(r"[^\W\d_]+([_ -]?[^\W_]+)?")  # one word or two, no path
MOST_OTHERS = 3  # different values that name no split, in a column that still tells the splits


@dataclass
class SplitEvidence:
    """Collects the values of one column or key, row by row.

    name: of the column or key. find: the split that a value names, or None; by default the usual
    names, and yes and no in a column named like a split.
    """

    name: str
    find: Callable[[str], str | None] | None = None
    splits: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    named: int = 0
    rows: int = 0
    contradicts: bool = False  # holds out a row that is a training image by what is read

    def __post_init__(self) -> None:
        self._usual = SplitValues(self.name, flagged=flag_splits(last_part(self.name)))
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
        return self.tells or (several and is_called_split(last_part(self.name)))


def last_part(name: str) -> str:
    """`subset` of the nested key `meta.subset`."""
    return name.rsplit(".", 1)[-1]
