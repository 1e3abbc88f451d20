"""Finding runs again by what they computed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdrun.engine import distributed
from kdrun.runs.folder import safe_name
from kdrun.runs.result import COMPLETED, read_result


def group_folder(root: Path, verb: str, dataset: str, name: str) -> Path:
    """The folder whose children are the runs of that name."""
    return root / verb / safe_name(dataset) / safe_name(name)


def runs_in(group: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, result) of every run in a group, the newest first; unreadable ones are left out."""
    if not group.is_dir():
        return
    for folder in sorted(group.iterdir(), reverse=True):
        result = read_result(folder)
        if result is not None:
            yield folder, result


def find_run(group: Path, key: str, value: str, finished: bool) -> Path | None:
    """The newest run whose result has `key` = `value`, finished or not as asked."""

    def find() -> Path | None:
        for folder, result in runs_in(group):
            if result.get(key) == value and (result.get("status") == COMPLETED) is finished:
                return folder
        return None

    return distributed.decided(find)
