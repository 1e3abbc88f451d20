"""Whether a column or key tells the splits although no setting names it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from kdrun.data.containers.split_values import SplitValues
from kdrun.data.containers.table_columns import flag_splits
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
        name = self.name.rsplit(".", 1)[-1]
        self._flags = SplitValues(name, flagged=flag_splits(name))

    def add(self, value: object, used: str | None = "train") -> None:
        """Look at the value of one row, whose split is read as `used`."""
        text = "" if value is None else str(value).strip()
        split = self.find(text) if self.find is not None else None
        split = split or self._flags.find(text)
        if split is None and WORD.fullmatch(text) and (match := split_name(text)) is not None:
            split = match.split  # PublicTest
        self.rows += 1
        if split is None:
            self.others.add(text)
        else:
            self.named += 1
            self.splits.add(split)
            self.contradicts |= used == "train" != split

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
