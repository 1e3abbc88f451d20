"""Class names that look alike: two spellings of one name are refused or reported."""

import unicodedata
from collections.abc import Callable, Iterable

from kdrun.errors import DataError


def refuse_two_forms(names: Iterable[str], what: str) -> None:
    """Raise DataError for two names that are one in Unicode's normal form (é as e + accent)."""
    for first, second, *_ in _groups(names, lambda name: unicodedata.normalize("NFC", name)):
        raise DataError(
            f"{what} has the classes {first!a} and {second!a}, which are {first!r} in two Unicode "
            "forms (NFC and NFD): use one of them."
        )


def spelling_notes(names: Iterable[str], what: str) -> list[str]:
    """A note on names that differ only in case, spaces or invisible characters."""
    similar = _groups(names, _plain)
    if not similar:
        return []
    shown = "; ".join(" and ".join(map(repr, group)) for group in similar[:3])
    return [f"{what}: classes that differ only in case, spaces or invisible characters: {shown}."]


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """The names that share a key, at least two each."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return " ".join(visible.casefold().split())
