"""What the columns of a table that are not read would have said: splits, and class numbers."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.data.containers.split_values import NO, YES
from kdrun.data.containers.table_columns import Columns, flag_splits, numbers_classes
from kdrun.errors import DataError

MOST_LISTED = 20


@dataclass
class UnusedColumns:
    """Watches the rows of a table; a column is dropped at its first value of another kind.

    find: the split that a value names, or None. ignore_splits: the user does not want any.
    """

    path: Path
    columns: Columns
    find: Callable[[str], str | None]
    ignore_splits: bool
    _splits: dict[int, set[str]] = field(default_factory=dict)
    _flags: dict[int, set[bool]] = field(default_factory=dict)
    _numbers: dict[int, dict[str, int]] = field(default_factory=dict)  # column → label → number

    def __post_init__(self) -> None:
        used = {self.columns.path, self.columns.label, self.columns.split}
        unused = [at for at in range(len(self.columns.names)) if at not in used]
        if self.columns.split is None and not self.ignore_splits:
            self._splits = {at: set() for at in unused}
            self._flags = {at: set() for at in unused if flag_splits(self.columns.names[at])}
        self._numbers = {at: {} for at in unused if numbers_classes(self.columns.names[at])}

    def add(self, fields: Sequence[str], label: str) -> None:
        """Look at one row."""
        for at in list(self._splits):
            split = self.find(fields[at].strip())
            if split is None:
                del self._splits[at]
            else:
                self._splits[at].add(split)
        for at in list(self._flags):
            text = fields[at].strip().casefold()
            if text in YES or text in NO:
                self._flags[at].add(text in YES)
            else:
                del self._flags[at]
        for at in list(self._numbers):
            text = fields[at].strip()
            number = int(text) if text.isdecimal() and len(text) < 10 else -1
            if number < 0 or self._numbers[at].setdefault(label, number) != number:
                del self._numbers[at]

    def refuse_splits(self) -> None:
        """Raise DataError for a column that tells the splits.

        Every value of it names a split, and one is train; or it is named like a split and holds
        yes and no.
        """
        for at, splits in self._splits.items():
            if "train" in splits and len(splits) > 1:
                raise self._overlooked(at, "names a split")
        for at, flags in self._flags.items():
            if len(flags) > 1:
                raise self._overlooked(at, "is yes or no")

    def _overlooked(self, at: int, what: str) -> DataError:
        name = self.columns.names[at]
        key = shlex.quote(f"dataset.split_column={name}")
        return DataError(
            f"{self.path}: every value of column {name!r} {what}, but no split column is set: use "
            f"{key} to read the splits from it, or dataset.split_column=false to ignore it."
        )

    def order_notes(self, classes: Sequence[str]) -> list[str]:
        """A note if a column numbers the classes in another order."""
        for at, numbers in self._numbers.items():
            order = sorted(numbers, key=numbers.__getitem__)
            one_to_one = set(numbers) == set(classes) and len(set(numbers.values())) == len(numbers)
            if one_to_one and order != list(classes):
                listed = shlex.quote(f"dataset.class_order=[{','.join(order)}]")
                file = "dataset.class_order=FILE with one class per line"
                return [
                    f"{self.path.name}: column {self.columns.names[at]!r} numbers the classes in "
                    f"another order: {listed if len(order) <= MOST_LISTED else file} takes it."
                ]
        return []
