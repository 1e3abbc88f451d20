"""A run folder: it belongs to one run and holds everything to repeat or resume the run."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from kdrun.checksums import SUMS, is_listed, seal
from kdrun.config.composition import STAMP, stamp
from kdrun.engine import distributed
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.errors import FULL, ConfigError
from kdrun.files import (
    ABANDONED_SECONDS,
    is_held,
    make_folder,
    remove_unfinished,
    require_plain,
    write_atomically,
    write_json,
)
from kdrun.removal import holds_nothing, remove
from kdrun.runs.environment import environment
from kdrun.runs.metrics import write_metrics
from kdrun.runs.reading import DESCRIPTION, RESULT
from kdrun.runs.result import ResultFile
from kdrun.world import world

STAMPS = 100  # names that are tried for a new folder
FIRST_FILES = (".lock", "run.log")  # what a run has before it has written anything
UNSEALED = (SUMS, "run.log")  # a log may get further lines


class RunFolder:
    """Paths of one run, and the lock that its process holds while it works."""

    def __init__(self, path: Path) -> None:
        self._group: Path | None = None
        self._place(path)

    def _place(self, path: Path) -> None:
        self.path = path
        self.result = ResultFile(path / "result.json")
        self.checkpoints = CheckpointFolder(path / "checkpoints")
        self._lock = FileLock(path / ".lock")

    @classmethod
    def new_in(cls, group: Path) -> "RunFolder":
        """A new folder `<group>/<stamp>-<uid>`, which is made when it is acquired.

        So a command that is refused before that leaves none.
        """
        folder = cls(group / distributed.broadcast_from_main(stamp))
        folder._group = group
        return folder

    def make(self) -> None:
        """Make a new folder; in the rare case that its name is taken, under another name.

        Raises ConfigError when it cannot be made.
        """
        if self._group is not None:
            group, name = self._group, self.path.name
            path = distributed.broadcast_from_main(lambda: _make_in(group, name))
            if path != self.path:
                self._place(path)
            self._group = None

    def is_free(self) -> bool:
        """Whether no running process holds it."""
        try:
            self.acquire()
        except ConfigError:
            return False
        self.release()
        return True

    def acquire(self) -> None:
        """Lock the folder for this process.

        Raises ConfigError when a living one has it, and for a folder with links or pipes in it.
        """
        self.make()
        distributed.broadcast_from_main(self._lock_or_refuse)

    def _lock_or_refuse(self) -> None:
        for folder in (self.path, self.checkpoints.folder):
            require_plain(folder)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{self.path} is in use: its run is still running.") from None

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def describe(
        self, config: dict[str, Any], command: Iterable[str], facts: dict[str, Any]
    ) -> None:
        """Write `env.json`, `command.txt` and, last, `config.yaml`, which makes it a run."""
        write_json(self.path / "env.json", {**environment(), **facts})
        write_atomically(self.path / "command.txt", f"{shlex.join(['kdrun', *command])}\n".encode())
        write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(config).encode())

    def begin(self) -> None:
        """Start or resume the run: delete unfinished files of a killed process."""
        if world().is_main:
            remove_unfinished(self.path)
            seal(self.path, DESCRIPTION)

    def seal(self) -> None:
        """Write the checksums of all files of the run, which has ended."""
        if world().is_main:
            own = self.path.glob("*") if self.path.is_dir() else ()
            names = sorted(path.name for path in own if path.is_file())
            seal(self.path, [name for name in names if name not in UNSEALED and name[0] != "."])

    def tidy(self) -> None:
        """Write the checksums of a complete run whose process was killed before it did."""
        if not is_listed(self.path / RESULT) and world().is_main:
            with suppress(OSError, ConfigError):  # it may not be written, or is being finished
                self._lock_or_refuse()
                remove_unfinished(self.path)
                self.seal()
                self.release()

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write `metrics.jsonl` and `metrics.csv` with one line per epoch."""
        write_metrics(self.path, rows)


def _make_in(group: Path, name: str) -> Path:
    _remove_abandoned(group)
    for attempt in range(STAMPS):
        path = group / (stamp() if attempt else name)
        try:
            make_folder(group)
            path.mkdir()
            return path
        except FileExistsError:
            continue  # another process drew the same name
        except OSError as error:
            if error.errno in FULL:
                raise
            raise ConfigError(
                f"The run's folder cannot be made: {error}: check the permissions, or set "
                "output_root=... to another place."
            ) from None
    raise ConfigError(f"The run's folder cannot be made: {STAMPS} names in {group} are taken.")


def _remove_abandoned(group: Path) -> None:
    """Delete empty run folders, made long ago by processes that were killed at once.

    Empty but for the lock and an empty log: a folder with one byte in it stays.
    """
    for path in group.glob("*"):
        if not re.fullmatch(STAMP, path.name) or not holds_nothing(path, FIRST_FILES):
            continue
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime >= ABANDONED_SECONDS
            if old and not is_held(path / ".lock"):
                remove(path, FIRST_FILES, folder_too=True)


def safe_name(name: str) -> str:
    """A folder name of at most 120 characters, without special characters of paths."""
    cleaned = "".join(c if c.isalnum() or c in "._+-" else "_" for c in name).lstrip(".")
    return cleaned[:120] or "_"


def counted_names(names: Iterable[str]) -> str:
    """`a+b`, equal ones counted: `3xa+b`."""
    counts = Counter(names)
    return "+".join(name if count == 1 else f"{count}x{name}" for name, count in counts.items())
