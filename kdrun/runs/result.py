"""`result.json`: what a run is, where it stands and what came out, from its first second on."""

from pathlib import Path
from typing import Any

from kdrun.checksums import is_intact
from kdrun.files import read_json, write_json
from kdrun.runs.shape import is_result

SCHEMA = 1
RUNNING, COMPLETED, INTERRUPTED, FAILED = "running", "completed", "interrupted", "failed"


class ResultFile:
    """The result of one run, rewritten atomically at each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}

    def start(self, command: str, **known: Any) -> None:
        """Begin, or begin again: the run is running and has no error."""
        self.values = {
            "schema": SCHEMA,
            "command": command,
            "status": RUNNING,
            "error": None,
            **known,
        }
        write_json(self.path, self.values)

    def update(self, **values: Any) -> None:
        """Set some of the values."""
        self.values |= values
        write_json(self.path, self.values)


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result in a run's folder; None when there is none that can be read, or it is damaged.

    That of a run which has not ended is not listed in `SHA256SUMS` yet.
    """
    path = folder / "result.json"
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return None
    if not is_result(values):
        return None
    status = values.get("status")
    if status not in (RUNNING, COMPLETED, INTERRUPTED, FAILED):
        return None
    return values if status != COMPLETED or is_intact(path) else None
