"""Paths from settings."""

from pathlib import Path

from kdrun.errors import DataError


def expanded(value: str | Path, where: str) -> Path:
    """Expand `~`. Raises DataError naming the setting if there is no home folder."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise DataError(f"{where}={value}: there is no home folder for this '~'.") from None
