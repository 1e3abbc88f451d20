"""The only place in kdrun that deletes: every other module calls `remove`.

The rule (docs/reliability.md): kdrun deletes only regular files with names that kdrun gives, and
folders only if they are then empty. It neither follows nor deletes links and does not enter
subfolders, so files that others put next to kdrun's stay, and so does their folder.
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
    """Delete kdrun's files directly in `folder`. Returns whether the folder is gone.

    names: file names. like: regular expression for whole file names.
    folder_too: also delete the folder if it is empty.
    In a folder that is a link, deletes only files listed in `names`. Ignores system errors: files
    that cannot be deleted stay.
    """
    if folder.is_symlink() and (like is not None or folder_too):
        return False
    targets = set(names)
    if like is not None:
        with suppress(OSError):
            targets |= {name for name in os.listdir(folder) if re.fullmatch(like, name, re.DOTALL)}
    for name in targets:
        with suppress(OSError):
            path = folder / name
            if stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
    if folder_too:
        with suppress(OSError):
            folder.rmdir()  # fails unless the folder is empty
    return not os.path.lexists(folder)


def holds_nothing(folder: Path, names: Iterable[str]) -> bool:
    """Whether `folder` is not a link and contains at most empty files listed in `names`."""
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
