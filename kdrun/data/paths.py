"""Paths from settings, and whether they stay inside the data set's folder."""

import os
from pathlib import Path

from kdrun.errors import DataError


def expanded(value: str | Path, where: str) -> Path:
    """Expand `~`. Raises DataError naming the setting if there is no home folder."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise DataError(f"{where}={value}: there is no home folder for this '~'.") from None


def leaves(folder: str, path: str) -> bool:
    """Whether `path` lies outside `folder`; both without links (`os.path.realpath`)."""
    try:
        return os.path.commonpath((folder, path)) != folder
    except ValueError:  # another drive
        return True
