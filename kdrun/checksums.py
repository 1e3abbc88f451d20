"""`SHA256SUMS`: what the finished files of a folder hold, as `sha256sum -c SHA256SUMS` reads it.

A file is damaged when it is listed and its digest differs. A file that is not listed is taken as it
is: folders of other programs, and copies of single files, have no list.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kdrun.files import sha256_of, write_atomically
from kdrun.limits import MIB, read_text
from kdrun.removal import remove

SUMS = "SHA256SUMS"


def seal(folder: Path, names: Iterable[str]) -> None:
    """List the digests of those of the files `names` that are there, and of no others.

    A list that cannot be written is left out: the files are good without it.
    """
    with suppress(OSError):
        unseal(folder)
        there = [name for name in names if (folder / name).is_file()]
        lines = [f"{sha256_of(folder / name)}  {name}\n" for name in there]
        write_atomically(folder / SUMS, "".join(lines).encode())


def unseal(folder: Path) -> None:
    """Forget the list: its files are about to be written anew."""
    remove(folder, [SUMS])


def is_intact(path: Path) -> bool:
    """Whether a file holds what its folder's list says; True where nothing is said of it."""
    try:
        lines = read_text(path.parent / SUMS, MIB).splitlines()
    except (OSError, ValueError):
        return True
    parts = (line.partition("  ") for line in lines)
    said = {name: digest for digest, _, name in parts}
    try:
        return path.name not in said or said[path.name] == sha256_of(path)
    except (OSError, ValueError):
        return True  # what is no file is missed by whoever reads it


def damaged(path: Path) -> str:
    """The sentence for a file that is not intact."""
    return (
        f"{path} is damaged: its SHA-256 is not the one in {SUMS}. Restore it; if it was changed "
        f"on purpose, delete {path.parent / SUMS}."
    )
