"""Small files written so that a reader never sees half of one."""

import glob
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdrun import limits
from kdrun.errors import ConfigError
from kdrun.world import world

# A file with this name is half written; one that old belongs to a process that was killed.
UNFINISHED = ".unfinished-"
ABANDONED_SECONDS = 3600.0
# How the names of files end that kdrun writes into its folders; no folder there has such a name.
FILES = (".csv", ".json", ".jsonl", ".log", ".md", ".pt", ".safetensors", ".txt", ".yaml")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; a kill leaves the old file or the new one.

    Of several processes that train together only the first one writes.
    """
    if not world().is_main:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(path)
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:  # a failed write does not say of which file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """The name of a hidden file beside `path`; it becomes `path` when the block ends well.

    If the block raises, the hidden file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _unfinished_name(path: Path) -> Path:
    """Where `path` is written until it is whole; what killed processes left of it long ago goes."""
    remove_unfinished(path.parent, path.name, ABANDONED_SECONDS)
    return path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")


def remove_unfinished(folder: Path, name: str = "*", age_seconds: float = 0.0) -> None:
    """Delete what killed processes left half written in `folder`.

    With an age of 0 nobody else may be writing there: the caller holds the folder's lock.
    """
    for left in folder.glob(f"{UNFINISHED}*-{glob.escape(name) if name != '*' else name}"):
        with suppress(OSError):  # somebody else was quicker, or the folder cannot be written
            if time.time() - left.stat().st_mtime >= age_seconds:
                left.unlink()


def require_plain(folder: Path) -> None:
    """Raise ConfigError for a link or a pipe in `folder`, or a folder with the name of a file.

    What is written there must not end up elsewhere, nor wait for a reader.
    """
    for entry in folder.glob("*"):
        mode = entry.lstat().st_mode
        is_folder = stat.S_ISDIR(mode)
        if stat.S_ISREG(mode) or (is_folder and entry.suffix not in FILES):
            continue
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if is_folder else "no file"
        raise ConfigError(
            f"{entry} is {what}, and kdrun writes into that place: remove it, or put a file there."
        )


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically. NaN and infinity are refused: other readers choke."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`; ValueError when it holds none (see `kdrun.limits`)."""
    return limits.read_json(path)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal; ValueError for what is not a file."""
    with open(path, "rb", opener=limits.open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_hash(value: Any) -> str:
    """SHA-256 of plain data, the same whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock file `path`, or it cannot be tried."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except OSError:  # the time is up, or the file is another user's
        return True
    lock.release()
    return False


@contextmanager
def held(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` alone; `waiting` is called once when another process has it.

    The system releases the lock of a killed process, so nobody waits for the dead. Of several
    processes that train together the first one holds it for all.
    """
    if not world().is_main:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
