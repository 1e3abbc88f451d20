"""Paths that a user typed."""

from pathlib import Path

from kdrun.errors import DataError


def expanded(value: str | Path, where: str) -> Path:
    """The path with `~` replaced. Raises DataError naming the setting for an unknown user."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise DataError(f"{where}={value}: there is no home folder for this '~'.") from None
