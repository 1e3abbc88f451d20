"""Atomic writes, locks, JSON and hashes of small files."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdrun import limits
from kdrun.errors import ConfigError, machine_error
from kdrun.removal import remove
from kdrun.world import world

# Prefix of unfinished files; files older than ABANDONED_SECONDS belong to killed processes.
UNFINISHED = ".unfinished-"
UNFINISHED_NAME = r"\.unfinished-[0-9a-f]{8}-"
ABANDONED_SECONDS = 3600.0
# Folders that commands share below an output root.
ROOT_FOLDERS = ("distill/.locks", "teachers/.locks", "cache/teacher-outputs")
# Suffixes of files that kdrun writes into its folders; no folder there has such a name.
FILES = (".csv", ".json", ".jsonl", ".log", ".md", ".pt", ".safetensors", ".txt", ".yaml")


def write_atomically(path: Path, content: bytes) -> None:
    """Atomically replace `path` by `content`; a kill leaves the old or the new file.

    In distributed training, only the main process writes.
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
        raise _with_name(error, path) from None
    finally:
        remove(unfinished.parent, [unfinished.name])


def write_new(files: Mapping[Path, bytes]) -> None:
    """Write all files, or none if one of them exists or cannot be written.

    Raises FileExistsError, or another OSError, naming the file. Overwrites nothing, even if another
    process creates a file in the meantime.
    """
    for path in files:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    unfinished: dict[Path, Path] = {}
    written: list[Path] = []
    try:
        for path, content in files.items():
            make_folder(path.parent)
            unfinished[path] = _unfinished_name(path)
            write_atomically(unfinished[path], content)
        for path, complete in unfinished.items():
            _rename_new(complete, path)
            written.append(path)
    except BaseException as error:
        for path in written:
            remove(path.parent, [path.name])
        affected = [path for path, temp in unfinished.items() if str(temp) == _file_of(error)]
        if isinstance(error, OSError) and affected:
            raise _with_name(error, affected[0]) from None
        raise
    finally:
        for temp in unfinished.values():
            remove(temp.parent, [temp.name])


def _rename_new(complete: Path, path: Path) -> None:
    """Rename a complete file. Raises FileExistsError if the name is taken."""
    try:
        os.link(complete, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(complete, path)


def _file_of(error: BaseException) -> str:
    return str(getattr(error, "filename", ""))


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Yield a hidden file next to `path`, which replaces `path` when the block succeeds.

    If the block raises, the hidden file is removed and `path` does not change.
    """
    make_folder(path.parent)
    unfinished = _unfinished_name(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise _with_name(error, path) from None
    finally:
        remove(unfinished.parent, [unfinished.name])


@contextmanager
def writing_temporary(folder: str | Path) -> Iterator[None]:
    """For a block that only writes into `folder`, a temporary one: a full disk is told as its own.

    Raises MachineError, which says how to choose another disk.
    """
    try:
        yield
    except OSError as error:
        named = _with_name(error, Path(folder))
        raise machine_error(named, "set TMPDIR=... to another disk") or error from None


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises ConfigError if a file or a broken link is in the way, or if the place takes no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc, for example
        require_path(folder)
        raise ConfigError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    except OSError:
        require_path(folder)
        raise


def require_root(root: Path, *more: Path) -> None:
    """`require_path` for all folders that kdrun uses below an output root.

    more: further folders of this command.
    """
    for name in ROOT_FOLDERS:
        require_path(root / name)
    if os.path.abspath(root).split(os.sep)[1:2] in (["proc"], ["sys"]):
        raise ConfigError(f"output_root={root} cannot be written: name another folder.")
    for path in more:
        require_path(path)


def require_path(path: Path) -> None:
    """Raise ConfigError if a file or a broken link at or above `path` prevents its creation.

    Names the target of a broken link (such as an unmounted disk).
    """
    for folder in (path, *path.parents):
        if folder.is_symlink() and not os.path.exists(folder):
            target = os.readlink(folder)
            raise ConfigError(
                f"The folder {path} cannot be created: {folder} is a link to {target}, which does "
                f"not exist. Mount or create {target}, or remove the link."
            )
        if os.path.exists(folder):
            if not os.path.isdir(folder):
                raise ConfigError(
                    f"The folder {path} cannot be created: {folder} is a file. Move it, or use "
                    "another folder."
                )
            return


def _with_name(error: OSError, path: Path) -> OSError:
    """The error of a failed write with the file name, which the system omits."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def _unfinished_name(path: Path) -> Path:
    """A temporary name for writing `path`; also removes old leftovers of killed processes."""
    remove_unfinished(path.parent, path.name, ABANDONED_SECONDS)
    return path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")


def remove_unfinished(folder: Path, name: str = "*", age_seconds: float = 0.0) -> None:
    """Delete unfinished files of killed processes in `folder`.

    With an age of 0, the caller must hold the folder's lock so that no other process writes there.
    """
    suffix = ".+" if name == "*" else re.escape(name)
    abandoned = []
    for path in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # another process removed it
            old = time.time() - path.stat().st_mtime >= age_seconds
            if old and re.fullmatch(UNFINISHED_NAME + suffix, path.name, re.DOTALL):
                abandoned.append(path.name)
    remove(folder, abandoned)


def require_plain(folder: Path) -> None:
    """Raise ConfigError for links and pipes in `folder`, and folders with names of files.

    Writes must not end up elsewhere or block.
    """
    for entry in folder.glob("*"):
        mode = entry.lstat().st_mode
        is_folder = stat.S_ISDIR(mode)
        if stat.S_ISREG(mode) or (is_folder and entry.suffix not in FILES):
            continue
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if is_folder else "not a file"
        raise ConfigError(
            f"{entry} is {what}, but kdrun writes a file there: remove it, or replace it by a file."
        )


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    place = os.path.abspath(folder)  # not resolved: links may lead in a circle
    while not os.path.exists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return shutil.disk_usage(place).free


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises ValueError (see `kdrun.limits`)."""
    return limits.read_json(path)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex. Raises ValueError unless it is a regular file."""
    with open(path, "rb", opener=limits.open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_hash(value: Any) -> str:
    """SHA-256 of plain data, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def require_locks(path: Path) -> None:
    """Raise ConfigError if the file system does not support locks, to avoid waiting forever."""
    try:
        import fcntl
    except ImportError:  # Windows always supports locks
        return
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # held by another process
        except OSError as error:
            raise ConfigError(
                f"The file system of {path} does not support locks ({error.strerror}): set "
                "output_root=... to a folder on another one."
            ) from None


def is_held(path: Path) -> bool:
    """Whether a running process holds the lock file `path`, or the lock cannot be tested."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except OSError:  # timed out, or another user's file
        return True
    lock.release()
    return False


@contextmanager
def held(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` exclusively; calls `waiting` once if another process holds it.

    The system releases the lock of a killed process. In distributed training, the main process
    holds it for all.
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
