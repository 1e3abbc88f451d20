"""Files that kdrun writes into folders of the user: reports, exports, rankings.

`.kdrun-files.json` in such a folder notes the SHA-256 of what kdrun wrote there. A file of the
same name with other content is somebody else's, or was edited since, and is never overwritten.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError
from kdrun.files import published, read_json, sha256_of, write_atomically, write_json

RECORD = ".kdrun-files.json"
KEPT = 8  # digests per file: a kill between record and file leaves the older one valid


def require_own(folder: Path, names: Iterable[str], remedy: str) -> None:
    """Raise ConfigError if one of the files `names` is there and is not as kdrun wrote it.

    remedy: what to do other than moving the file.
    """
    known = _known(folder)
    for name in names:
        path = folder / name
        if os.path.lexists(path) and _digest(path) not in known.get(name, []):
            raise ConfigError(
                f"{path} is not as kdrun wrote it, and is not overwritten: move it, or {remedy}."
            )


def write_own(path: Path, content: bytes, remedy: str) -> None:
    """`write_atomically`, but raises ConfigError rather than replace what is not kdrun's."""
    with published_own(path, remedy) as unfinished:
        write_atomically(unfinished, content)


@contextmanager
def published_own(path: Path, remedy: str) -> Iterator[Path]:
    """`published`, but raises ConfigError rather than replace what is not kdrun's."""
    require_own(path.parent, [path.name], remedy)
    with published(path) as unfinished:
        yield unfinished
        require_own(path.parent, [path.name], remedy)  # it may have appeared meanwhile
        known = _known(path.parent)
        digest = sha256_of(unfinished)
        before = [one for one in known.get(path.name, []) if one != digest]
        known[path.name] = [*before, digest][-KEPT:]
        write_json(path.parent / RECORD, {"schema": 1, "files": known})


def _digest(path: Path) -> str | None:
    """None for what is no file of its own: a link, a folder, a pipe."""
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
