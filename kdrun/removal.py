"""The only place in kdrun that deletes: every other module calls `remove`.

The rule (docs/reliability.md): kdrun deletes a file only if kdrun gave it its name and it is a
regular file, and a folder only if that leaves it empty. Links are neither followed nor deleted,
subfolders are not entered, so whatever somebody else put beside kdrun's files stays, and so does
the folder that holds it.
"""

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def remove(
    folder: Path, names: Iterable[str] = (), like: str | None = None, folder_too: bool = False
) -> bool:
    """Delete kdrun's own files directly in `folder`; returns whether the folder is gone.

    names: file names. like: a regular expression that a whole file name must match.
    folder_too: delete the folder as well if nothing is left in it.
    A folder that is a link is left as it is unless the files are named one by one.
    Errors of the system are ignored: what cannot be deleted stays.
    """
    if folder.is_symlink() and (like is not None or folder_too):
        return False
    found = set(names)
    if like is not None:
        with suppress(OSError):
            found |= {name for name in os.listdir(folder) if re.fullmatch(like, name, re.DOTALL)}
    for name in found:
        with suppress(OSError):
            path = folder / name
            if stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
    if folder_too:
        with suppress(OSError):
            folder.rmdir()  # refuses a folder that holds anything
    return not os.path.lexists(folder)


def holds_nothing(folder: Path, names: Iterable[str]) -> bool:
    """Whether `folder` is a real folder whose only entries, if any, are empty files of `names`."""
    allowed = set(names)
    try:
        with os.scandir(folder) as entries:
            return not folder.is_symlink() and all(
                entry.name in allowed
                and entry.is_file(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_size == 0
                for entry in entries
            )
    except OSError:
        return False
