"""Find runs and teachers on disk, whatever their state."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.checksums import is_listed
from kdrun.report.records import read_object
from kdrun.runs.reading import RESULT, is_run_folder

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Found:
    """A folder and the content of its JSON file; values: empty if unreadable."""

    folder: Path
    modified: float
    values: dict[str, Any]


def find_runs(root: Path = OUTPUTS) -> list[Found]:
    """Every run's folder below `root`, newest first."""
    return _newest_first(root / name for name in _below(root))


def run_folders(root: Path = OUTPUTS) -> list[Path]:
    """The folders of `find_runs`, newest first, without reading any of them."""
    paths = [root / name for name in _below(root)]
    return [path.parent for path in sorted(paths, key=_age_key)]


def find_teachers(root: Path = OUTPUTS) -> list[Found]:
    """Every finished teacher in the store below `root`, newest first."""
    cards = (entry / "teacher.json" for entry in (root / "teachers").glob("*/*/"))
    return _newest_first(card for card in cards if card.is_file() or is_listed(card))


def _below(root: Path) -> Iterator[str]:
    for folder, inner, files in os.walk(root):
        inner[:] = [i for i in inner if not i.startswith(".") and i not in ("checkpoints",)]
        if Path(folder) == root:
            inner[:] = [i for i in inner if i != "teachers"]
        if is_run_folder(Path(folder), files):
            yield os.path.relpath(os.path.join(folder, RESULT), root)


def _newest_first(paths: Iterator[Path]) -> list[Found]:
    found = [Found(path.parent, _modified(path), read_object(path)) for path in paths]
    return sorted(found, key=lambda one: (-one.modified, str(one.folder)))


def _age_key(path: Path) -> tuple[float, str]:
    """Sort key: newest first, then by name."""
    return -_modified(path), str(path)


def _modified(path: Path) -> float:
    for one in (path, path.parent):  # the folder's where the file is missing
        with suppress(OSError):
            return one.stat().st_mtime
    return 0.0
