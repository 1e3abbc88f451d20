"""`SHA256SUMS`: digests of a folder's finished files, in the format of `sha256sum -c`.

A listed file is damaged if it is missing or its digest differs; all files of a folder are damaged
if the list itself is. Unlisted files, and files without a list, are accepted: folders of other
programs and copied files have no list, and users delete the list after an intentional change.
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
    """Write the list with the digests of the existing files among `names`.

    If that fails, removes the list: the files are valid without one.
    """
    try:
        existing = [name for name in names if (folder / name).is_file()]
        lines = [f"{sha256_of(folder / name)}  {name}\n" for name in existing]
        write_atomically(folder / SUMS, "".join(lines).encode())
    except OSError:
        with suppress(OSError):
            unseal(folder)


def unseal(folder: Path) -> None:
    """Delete the list, before its files are rewritten."""
    remove(folder, [SUMS])


def read_sums(folder: Path) -> dict[str, str] | None:
    """File name → digest; None without a list. Raises ValueError for a damaged list."""
    try:
        text = read_text(folder / SUMS, MIB)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ValueError(damaged_list(folder)) from None
    matches = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    if not text.endswith("\n") or not matches or not all(matches):
        raise ValueError(damaged_list(folder))
    return {match.group(2): match.group(1) for match in matches if match}


def find_fault(folder: Path, names: Iterable[str]) -> str:
    """Message for the first damaged or missing file of `names`; empty if all are intact."""
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
    """Whether its folder's list contains the file; True if the list is damaged."""
    with suppress(ValueError):
        return path.name in (read_sums(path.parent) or {})
    return True


def is_intact(path: Path) -> bool:
    """Whether a file matches its folder's list; True if it is not listed."""
    return not find_fault(path.parent, [path.name])


def damaged(path: Path) -> str:
    """Message for a file with another digest."""
    return (
        f"{path} is damaged: its SHA-256 differs from {SUMS}. Restore it; if it was changed "
        f"on purpose, delete {path.parent / SUMS}."
    )


def missing(path: Path) -> str:
    """Message for a listed file that does not exist."""
    return (
        f"{path} is missing, but {SUMS} lists it. Restore it; if it was deleted on purpose, delete "
        f"{path.parent / SUMS}."
    )


def damaged_list(folder: Path) -> str:
    """Message for an invalid list."""
    return (
        f"{folder / SUMS} is damaged: it is not a list of SHA-256 digests. Restore it, or delete "
        "it if the other files are known to be good."
    )
