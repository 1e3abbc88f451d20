"""The places that a data set's settings name: a name for them, and what cannot be one."""

import os
import re
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError

# Endings that are no part of a data set's name.
CONTAINERS = re.compile(r"\.(parquet|tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)$", re.IGNORECASE)


def place_name(kwargs: dict[str, Any]) -> str:
    """A name for a data set: its table, its folder, or what its shards have in common."""
    if isinstance(table := kwargs.get("file"), str):
        return Path(table).stem
    place = kwargs.get("root") or kwargs.get("train")
    place = str(place[0] if isinstance(place, list) and place else place or "")
    if not place:
        return "dataset"
    pattern = re.search(r"[*?\[{]", place)
    if pattern is None:
        path = _real(place)
        return CONTAINERS.sub("", path.name)
    folder, _, start = place[: pattern.start()].rpartition("/")
    return start.rstrip("-_. ") or _real(folder or ".").name or "dataset"


def _real(place: str) -> Path:
    """The path without links; of one that leads to itself, as far as it goes."""
    try:
        return Path(os.path.realpath(place))
    except (OSError, ValueError) as error:
        raise ConfigError(f"dataset.root={place!r:.200} is no path: {error}.") from None


def require_text(values: dict[str, Any]) -> None:
    """Raise ConfigError for a text that cannot be written into a run's files."""
    for key, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and any("\ud800" <= char <= "\udfff" for char in one):
                shown = str(value).encode("utf-8", "backslashreplace").decode()
                raise ConfigError(
                    f"dataset.{key}={shown} is not UTF-8: rename the file or folder, or give it a "
                    "link with another name."
                )
