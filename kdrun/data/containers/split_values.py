"""Map the values of a table's split column to splits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kdrun.data.folders.split_names import SPLIT_OF, split_name
from kdrun.data.text import abbreviate
from kdrun.errors import DataError

Names = str | list[str] | None
YES, NO = ("true", "1", "1.0", "yes", "t", "y"), ("false", "0", "0.0", "no", "f", "n")


@dataclass
class SplitValues:
    """Names of the splits: the usual ones, replaced per split by those of the user.

    where: file and column, for messages. train, val, test: the user's names. flagged: the splits of
    yes and no in a column of these.
    """

    where: str
    train: Names = None
    val: Names = None
    test: Names = None
    flagged: tuple[str, str] | None = None
    _known: dict[str, str] = field(default_factory=dict)
    _named: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        custom = {"train": self.train, "val": self.val, "test": self.test}
        self._named = {split for split, value in custom.items() if value is not None}
        usual = dict(SPLIT_OF)
        if self.flagged is not None:
            yes, no = self.flagged
            usual = dict.fromkeys(YES, yes) | dict.fromkeys(NO, no)
        self._known = {name: split for name, split in usual.items() if split not in self._named}
        for split, value in custom.items():
            for name in _as_list(value):
                if self._known.setdefault(_folded(name), split) != split:
                    raise DataError(f"dataset.{split}={name} already names another split.")

    def find(self, name: str) -> str | None:
        """The split called `name`; None if it is unknown."""
        if (split := self._known.get(_folded(name))) is not None:
            return split
        match = split_name(name)
        if match is None or not match.plain or match.split in self._named:
            return None
        return match.split

    def refuse(self, unknown: dict[str, int], hint: str) -> None:
        """Raise DataError listing unknown names and their counts, if there are any."""
        if not unknown:
            return
        shown = [
            f"{name!r} ({count:,})" if name else f"empty ({count:,})"
            for name, count in unknown.items()
        ]
        raise DataError(
            f"{self.where}: unknown split {abbreviate(shown, 10)}: known names are "
            f"{', '.join(sorted(self._known))}; set dataset.train, dataset.val or dataset.test to "
            f"other names, or {hint}."
        )


def _as_list(value: Names) -> Iterator[str]:
    if value is not None:
        yield from [value] if isinstance(value, str | int) else value


def _folded(name: object) -> str:
    return str(name).strip().casefold()
