"""Files that kdrun writes into folders of the user: reports, exports, rankings.

`.kdrun-files.json` in such a folder records the SHA-256 of files that kdrun wrote. A file with
another digest belongs to the user or was edited, and is never overwritten.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdrun.errors import ConfigError
from kdrun.files import (
    canonical_hash,
    published,
    read_json,
    sha256_of,
    write_atomically,
    write_json,
)

RECORD = ".kdrun-files.json"
MOST_DIGESTS = 8  # per file; after a kill between record and rename, an older digest is valid


def require_own(folder: Path, names: Iterable[str], remedy: str) -> None:
    """Raise ConfigError if one of the files `names` exists and was not written by kdrun.

    remedy: an alternative to moving the file, for the message.
    """
    with alone(folder):  # another process must not replace a file after its record was read
        known = _known(folder)
        for name in names:
            path = folder / name
            if os.path.lexists(path) and _digest(path) not in known.get(name, []):
                raise ConfigError(
                    f"{path} was not written by kdrun or was edited, and is not overwritten: move "
                    f"it, or {remedy}."
                )


def write_own(path: Path, content: bytes, remedy: str) -> None:
    """`write_atomically`, but raises ConfigError instead of replacing a user's file."""
    with published_own(path, remedy) as unfinished:
        write_atomically(unfinished, content)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time; may be nested. For what is read, changed and written again.

    The lock is a temporary file of this machine, so that the user's folder gets none.
    """
    name = canonical_hash([str(folder.resolve()), getattr(os, "getuid", int)()])[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"kdrun-{name}.lock", is_singleton=True):
        yield


@contextmanager
def published_own(path: Path, remedy: str) -> Iterator[Path]:
    """`published`, but raises ConfigError instead of replacing a user's file.

    The hidden file exists from the start: a folder that is not writable is told before the work,
    and another process that removes the folder if it is empty leaves it.
    """
    require_own(path.parent, [path.name], remedy)
    with published(path) as unfinished:
        unfinished.touch()
        yield unfinished
        digest = sha256_of(unfinished)
        with alone(path.parent):
            require_own(path.parent, [path.name], remedy)  # it may have appeared in the meantime
            known = _known(path.parent)
            earlier = [old for old in known.get(path.name, []) if old != digest]
            known[path.name] = [*earlier, digest][-MOST_DIGESTS:]
            write_json(path.parent / RECORD, {"schema": 1, "files": known})


def _digest(path: Path) -> str | None:
    """The SHA-256 of a regular file; None for links, folders and pipes."""
    try:
        return None if path.is_symlink() else sha256_of(path)
    except (OSError, ValueError):
        return None


def _known(folder: Path) -> dict[str, list[Any]]:
    try:
        files = read_json(folder / RECORD)["files"]
        return {str(name): list(digests) for name, digests in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
