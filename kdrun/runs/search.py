"""Find runs by an entry of their result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdrun.engine import distributed
from kdrun.runs.folder import safe_name
from kdrun.runs.reading import WEIGHTS, matching
from kdrun.runs.result import COMPLETED


def group_folder(root: Path, verb: str, dataset: str, name: str) -> Path:
    """The folder that holds all runs of that name."""
    return root / verb / safe_name(dataset) / safe_name(name)


def find_run(
    group: Path,
    key: str,
    value: str,
    finished: bool,
    warn: Callable[[str], None] = lambda fault: None,
    weights: bool = False,
) -> Path | None:
    """The newest run whose result has `key` = `value`. finished: its status is `completed`.

    warn: called for damaged runs, which are skipped. weights: also check its student's files.
    """

    def wanted(result: dict[str, Any]) -> bool:
        return result.get(key) == value and (result.get("status") == COMPLETED) is finished

    def find() -> Path | None:
        more = WEIGHTS if weights else ()
        return next((folder for folder, _ in matching(group, wanted, warn, more)), None)

    return distributed.broadcast_from_main(find)
