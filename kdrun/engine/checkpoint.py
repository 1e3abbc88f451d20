"""Checkpoints on disk: written atomically, verified when read, with a fallback copy."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kdrun.errors import CheckpointError
from kdrun.files import make_folder
from kdrun.removal import remove
from kdrun.world import world

UNFINISHED = "last.pt.tmp"
STATES = ("last.pt", "previous.pt", UNFINISHED)


class CheckpointFolder:
    """`last.pt` and, until the run has finished, the checkpoint before it as `previous.pt`.

    In distributed training only the main process writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"
        self._last_is_damaged = False  # a damaged last.pt must not replace previous.pt

    def save(self, payload: dict[str, Any]) -> None:
        """Write `payload`; if the process is killed at any moment, a readable file remains."""
        if not world().is_main:
            return
        make_folder(self.folder)
        unfinished = self.folder / UNFINISHED
        try:
            remove(self.folder, [UNFINISHED])
            with open(unfinished, "xb") as file:  # "x": never follows a link
                torch.save(payload, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            remove(self.folder, [UNFINISHED])  # frees space on a full disk
            cause = error.__context__ if isinstance(error, RuntimeError) else error
            if isinstance(cause, OSError):  # torch wraps it, without the file name
                raise OSError(cause.errno, cause.strerror, str(self.last)) from None
            raise
        if self.last.exists() and not self._last_is_damaged:
            os.replace(self.last, self.previous)
        os.replace(unfinished, self.last)
        self._last_is_damaged = False

    def load(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest readable checkpoint, or None; calls `warn` for damaged ones."""
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                self._last_is_damaged |= path is self.last
                fallback = "using the previous checkpoint" if path is self.last else "starting over"
                warn(f"{error} ({fallback})")
        return None

    def remove(self) -> None:
        """Delete all checkpoints, and the folder if it is then empty."""
        if world().is_main:
            remove(self.folder, STATES, folder_too=True)

    def exists(self) -> bool:
        """Whether there is a checkpoint, complete or not."""
        linked = self.folder.is_symlink()
        return not linked and any((self.folder / name).is_file() for name in STATES)

    def finish(self) -> None:
        """Delete the fallback checkpoint of a finished run."""
        if world().is_main:
            remove(self.folder, [self.previous.name])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: every byte is checked against its CRC and no code is executed.

    Raises CheckpointError naming the file if it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckpointError(f"{path} is compressed, so kdrun did not write it: not read.")
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: '{damaged}' fails its checksum.")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile and torch raise many types for a damaged archive
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}.") from None
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} is not a kdrun checkpoint.")
    return payload
