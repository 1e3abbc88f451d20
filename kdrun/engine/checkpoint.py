"""Training states on disk: written atomically, checked when read, with one to fall back on."""

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
    """`last.pt` and, until a run has ended, the one before it as `previous.pt`.

    Of several processes that train together only the first one writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"
        self._last_is_damaged = False  # then it must not take the place of the one before it

    def save(self, payload: dict[str, Any]) -> None:
        """Write `payload` so that a kill at any moment leaves a readable file."""
        if not world().is_main:
            return
        make_folder(self.folder)
        unfinished = self.folder / UNFINISHED
        try:
            remove(self.folder, [UNFINISHED])
            with open(unfinished, "xb") as file:  # never through a link
                torch.save(payload, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            remove(self.folder, [UNFINISHED])  # a full disk needs the room
            cause = error.__context__ if isinstance(error, RuntimeError) else error
            if isinstance(cause, OSError):  # torch hides it, and it does not name the file
                raise OSError(cause.errno, cause.strerror, str(self.last)) from None
            raise
        if self.last.exists() and not self._last_is_damaged:
            os.replace(self.last, self.previous)
        os.replace(unfinished, self.last)
        self._last_is_damaged = False

    def load(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest readable state, or None when there is none; damaged ones are told of."""
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                self._last_is_damaged |= path is self.last
                rest = (
                    "using the one before it"
                    if path is self.last
                    else "starting from the beginning"
                )
                warn(f"{error} ({rest})")
        return None

    def remove(self) -> None:
        """Nothing will be continued from here: delete the states, and the folder if it is empty."""
        if world().is_main:
            remove(self.folder, STATES, folder_too=True)

    def exists(self) -> bool:
        """Whether there is anything that `remove` would delete."""
        linked = self.folder.is_symlink()
        return not linked and any((self.folder / name).is_file() for name in STATES)

    def finish(self) -> None:
        """The run has ended: the fallback is not needed any more."""
        if world().is_main:
            remove(self.folder, [self.previous.name])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training state, every byte checked against its CRC, nothing executed.

    Raises CheckpointError naming the file when it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckpointError(f"{path} is packed, as no training state is: it is not read.")
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: '{damaged}' fails its checksum.")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive can fail in any of the reader's layers
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}.") from None
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} is not a training state of kdrun.")
    return payload
