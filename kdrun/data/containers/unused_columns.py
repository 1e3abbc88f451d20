"""Columns of a table that are not read although they hold splits or class numbers."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.data.containers.split_columns import SplitEvidence
from kdrun.data.containers.table_columns import Columns, is_class_number_name
from kdrun.errors import DataError

MOST_LISTED = 20


@dataclass
class UnusedColumns:
    """Checks the unused columns row by row, and drops those that hold neither.

    find: the split that a value names, or None. watch_splits: look for splits, too; False if the
    user has said where they are.
    """

    path: Path
    columns: Columns
    find: Callable[[str], str | None]
    watch_splits: bool
    _splits: dict[int, SplitEvidence] = field(default_factory=dict)
    _numbers: dict[int, dict[str, int]] = field(default_factory=dict)  # column → label → number

    def __post_init__(self) -> None:
        names = self.columns.names
        used = {self.columns.path, self.columns.label, self.columns.split}
        unused = [at for at in range(len(names)) if at not in used]
        if self.watch_splits:
            self._splits = {at: SplitEvidence(names[at], self.find) for at in unused}
        self._numbers = {at: {} for at in unused if is_class_number_name(names[at])}

    def add(self, fields: Sequence[str], label: str, split: str | None) -> None:
        """Look at one row, which is read into `split`."""
        for at in list(self._splits):
            self._splits[at].add(fields[at], split)
            if not self._splits[at].is_possible:
                del self._splits[at]
        for at in list(self._numbers):
            text = fields[at].strip()
            number = int(text) if text.isdecimal() and len(text) < 10 else -1
            if number < 0 or self._numbers[at].setdefault(label, number) != number:
                del self._numbers[at]

    def refuse_splits(self) -> None:
        """Raise DataError for a column of splits that is not read, or contradicts the one read."""
        for at, evidence in self._splits.items():
            if not evidence.tells or not evidence.contradicts:
                continue
            name = self.columns.names[at]
            key = shlex.quote(f"dataset.split_column={name}")
            if self.columns.split is None:
                raise DataError(
                    f"{self.path}: column {name!r} tells the splits, but no split column is set: "
                    f"use {key} to read it, or dataset.split_column=false to ignore it."
                )
            read = self.columns.names[self.columns.split]
            other = shlex.quote(f"dataset.split_column={read}")
            raise DataError(
                f"{self.path}: by column {name!r}, rows of the training split are held out, and by "
                f"column {read!r}, they are not: choose one, {key} or {other}."
            )

    def order_notes(self, classes: Sequence[str]) -> list[str]:
        """A note if a column of class numbers has another order."""
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
