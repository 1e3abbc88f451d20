"""`SHA256SUMS`: what the finished files of a folder hold, as `sha256sum -c SHA256SUMS` reads it.

A file is damaged when it is listed and its digest differs or it is gone, and every file of a folder
is when its list is not one. A file that is not listed, or has no list, is taken as it is: folders
of other programs and copies of single files have none, and whoever changes a file on purpose
deletes the list.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kdrun.files import sha256_of, write_atomically
from kdrun.limits import MIB, read_text
from kdrun.removal import remove

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def seal(folder: Path, names: Iterable[str]) -> None:
    """List the digests of those of the files `names` that are there, and of no others.

    A list that cannot be written leaves none: the files are good without it.
    """
    try:
        there = [name for name in names if (folder / name).is_file()]
        lines = [f"{sha256_of(folder / name)}  {name}\n" for name in there]
        write_atomically(folder / SUMS, "".join(lines).encode())
    except OSError:
        with suppress(OSError):
            unseal(folder)


def unseal(folder: Path) -> None:
    """Forget the list: its files are about to be written anew."""
    remove(folder, [SUMS])


def read_sums(folder: Path) -> dict[str, str] | None:
    """File name → digest; None where there is no list. Raises ValueError for one that is none."""
    try:
        text = read_text(folder / SUMS, MIB)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ValueError(damaged_list(folder)) from None
    found = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    if not text.endswith("\n") or not found or not all(found):
        raise ValueError(damaged_list(folder))
    return {match.group(2): match.group(1) for match in found if match}


def find_fault(folder: Path, names: Iterable[str]) -> str:
    """The sentence for the first of `names` that is damaged or missing; empty for none."""
    try:
        listed = read_sums(folder)
    except ValueError as error:
        return str(error)
    for name in names:
        path = folder / name
        if listed is None or name not in listed:
            continue
        if not os.path.lexists(path):
            return missing(path)
        try:
            if sha256_of(path) != listed[name]:
                return damaged(path)
        except (OSError, ValueError):
            return damaged(path)
    return ""


def is_listed(path: Path) -> bool:
    """Whether its folder's list, if that is one, names a file."""
    with suppress(ValueError):
        return path.name in (read_sums(path.parent) or {})
    return True


def is_intact(path: Path) -> bool:
    """Whether a file holds what its folder's list says; True where nothing is said of it."""
    return not find_fault(path.parent, [path.name])


def damaged(path: Path) -> str:
    """The sentence for a file that is not intact."""
    return (
        f"{path} is damaged: its SHA-256 is not the one in {SUMS}. Restore it; if it was changed "
        f"on purpose, delete {path.parent / SUMS}."
    )


def missing(path: Path) -> str:
    """The sentence for a file that is listed and gone."""
    return (
        f"{path} is missing, and {SUMS} lists it. Restore it; if it was deleted on purpose, delete "
        f"{path.parent / SUMS}."
    )


def damaged_list(folder: Path) -> str:
    """The sentence for a list that is none."""
    return (
        f"{folder / SUMS} is damaged: it is not a list of SHA-256 digests. Restore it, or delete "
        "it if the other files are known to be good."
    )
