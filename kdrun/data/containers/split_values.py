"""Which split a name stands for, in a table's column or in the name of a shard."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kdrun.data.containers.listing import abbreviated
from kdrun.data.folders.split_names import SPLIT_OF, split_name
from kdrun.errors import DataError

Names = str | list[str] | None


@dataclass
class SplitValues:
    """The names of the splits: the usual ones, and those that a user adds.

    where: what holds the names, for messages. train, val, test: the user's own; a split that is
    named by the user has no other name.
    """

    where: str
    train: Names = None
    val: Names = None
    test: Names = None
    _known: dict[str, str] = field(default_factory=dict)
    _named: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        given = {"train": self.train, "val": self.val, "test": self.test}
        self._named = {split for split, value in given.items() if value is not None}
        self._known = {name: split for name, split in SPLIT_OF.items() if split not in self._named}
        for split, value in given.items():
            for name in _as_list(value):
                if self._known.setdefault(_folded(name), split) != split:
                    raise DataError(
                        f"dataset.{split}={name}: this is already the name of another split."
                    )

    def find(self, name: str) -> str | None:
        """The split that `name` stands for; None when it is unknown."""
        if (split := self._known.get(_folded(name))) is not None:
            return split
        meaning = split_name(name)
        if meaning is None or not meaning.plain or meaning.split in self._named:
            return None
        return meaning.split

    def refuse(self, unknown: dict[str, int], hint: str) -> None:
        """Raise DataError naming the unknown names and how often each occurs; nothing if none."""
        if not unknown:
            return
        shown = [
            f"{name!r} ({count:,})" if name else f"empty ({count:,})"
            for name, count in unknown.items()
        ]
        raise DataError(
            f"{self.where}: unknown split {abbreviated(shown, 10)}: the names are "
            f"{', '.join(sorted(self._known))}; set dataset.train, dataset.val or dataset.test to "
            f"other names, or {hint}."
        )


def _as_list(value: Names) -> Iterator[str]:
    if value is not None:
        yield from [value] if isinstance(value, str | int) else value


def _folded(name: object) -> str:
    return str(name).strip().casefold()
