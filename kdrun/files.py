"""Small files written so that a reader never sees half of one."""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdrun import limits
from kdrun.errors import ConfigError
from kdrun.removal import remove
from kdrun.world import world

# A file with this name is half written; one that old belongs to a process that was killed.
UNFINISHED = ".unfinished-"
UNFINISHED_NAME = r"\.unfinished-[0-9a-f]{8}-"
ABANDONED_SECONDS = 3600.0
# What commands share below an output root.
ROOT_FOLDERS = ("distill/.locks", "teachers/.locks", "cache/teacher-outputs")
# How the names of files end that kdrun writes into its folders; no folder there has such a name.
FILES = (".csv", ".json", ".jsonl", ".log", ".md", ".pt", ".safetensors", ".txt", ".yaml")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; a kill leaves the old file or the new one.

    Of several processes that train together only the first one writes.
    """
    if not world().is_main:
        return
    make_folder(path.parent)
    unfinished = _unfinished_name(path)
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise _naming(error, path) from None
    finally:
        remove(unfinished.parent, [unfinished.name])


def write_new(files: Mapping[Path, bytes]) -> None:
    """Write all the files or, when one of them exists or cannot be written, none.

    Raises FileExistsError, or another OSError, naming the file. Nothing is overwritten, whoever
    makes a file of that name meanwhile.
    """
    for path in files:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    unfinished: dict[Path, Path] = {}
    made: list[Path] = []
    try:
        for path, content in files.items():
            make_folder(path.parent)
            unfinished[path] = _unfinished_name(path)
            write_atomically(unfinished[path], content)
        for path, whole in unfinished.items():
            _place_new(whole, path)
            made.append(path)
    except BaseException as error:
        for path in made:
            remove(path.parent, [path.name])
        named = [path for path, whole in unfinished.items() if str(whole) == _file_of(error)]
        if isinstance(error, OSError) and named:
            raise _naming(error, named[0]) from None
        raise
    finally:
        for whole in unfinished.values():
            remove(whole.parent, [whole.name])


def _place_new(whole: Path, path: Path) -> None:
    """Give a whole file its name, unless that is taken (FileExistsError)."""
    try:
        os.link(whole, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(whole, path)


def _file_of(error: BaseException) -> str:
    return str(getattr(error, "filename", ""))


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """The name of a hidden file beside `path`; it becomes `path` when the block ends well.

    If the block raises, the hidden file is removed and `path` stays as it was.
    """
    make_folder(path.parent)
    unfinished = _unfinished_name(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise _naming(error, path) from None
    finally:
        remove(unfinished.parent, [unfinished.name])


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises ConfigError where something else has its name: a file, or a link that leads nowhere.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        require_path(folder)
        raise


def require_root(root: Path, *more: Path) -> None:
    """`require_path` for everything kdrun keeps below an output root, before it writes anything.

    more: further folders of this command.
    """
    for name in ROOT_FOLDERS:
        require_path(root / name)
    if os.path.abspath(root).split(os.sep)[1:2] in (["proc"], ["sys"]):
        raise ConfigError(f"output_root={root} cannot be written: name another folder.")
    for path in more:
        require_path(path)


def require_path(path: Path) -> None:
    """Raise ConfigError if `path` cannot be made because of a link or a file above it (or at it).

    A link to a folder that is not there (a disk that is not mounted) is named with its target.
    """
    for one in (path, *path.parents):
        if one.is_symlink() and not os.path.exists(one):
            target = os.readlink(one)
            raise ConfigError(
                f"The folder {path} cannot be made: {one} is a link to {target}, which is not "
                f"there. Mount or make {target}, or remove the link."
            )
        if os.path.exists(one):
            if not os.path.isdir(one):
                raise ConfigError(
                    f"The folder {path} cannot be made: {one} is a file. Move it, or name another "
                    "folder."
                )
            return


def _naming(error: OSError, path: Path) -> OSError:
    """The error of a failed write, which the system raises without the name of the file."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def _unfinished_name(path: Path) -> Path:
    """Where `path` is written until it is whole; what killed processes left of it long ago goes."""
    remove_unfinished(path.parent, path.name, ABANDONED_SECONDS)
    return path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")


def remove_unfinished(folder: Path, name: str = "*", age_seconds: float = 0.0) -> None:
    """Delete what killed processes left half written in `folder`.

    With an age of 0 nobody else may be writing there: the caller holds the folder's lock.
    """
    rest = ".+" if name == "*" else re.escape(name)
    found = []
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # somebody else was quicker
            old = time.time() - left.stat().st_mtime >= age_seconds
            if old and re.fullmatch(UNFINISHED_NAME + rest, left.name, re.DOTALL):
                found.append(left.name)
    remove(folder, found)


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


def require_locks(path: Path) -> None:
    """Raise ConfigError where the file system knows no locks: waiting for one would never end."""
    try:
        import fcntl
    except ImportError:  # Windows, where locks are always there
        return
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody has it
        except OSError as error:
            raise ConfigError(
                f"The file system of {path} knows no locks ({error.strerror}): set output_root=... "
                "to a folder on another one."
            ) from None


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
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        require_locks(path)
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
