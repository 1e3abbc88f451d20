"""`result.json`: what a run is, where it stands and what came out, from its first second on."""

from pathlib import Path
from typing import Any

from kdrun.files import write_json

SCHEMA = 1
RUNNING, COMPLETED, INTERRUPTED, FAILED = "running", "completed", "interrupted", "failed"


class ResultFile:
    """The result of one run, rewritten atomically at each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}

    def start(self, command: str, **known: Any) -> None:
        """Begin, or begin again: the run is running and has no error."""
        values = {"schema": SCHEMA, "command": command, "status": RUNNING, "error": None}
        self._write({**values, **known})

    def update(self, **values: Any) -> None:
        """Set some of the values."""
        self._write(self.values | values)

    def _write(self, values: dict[str, Any]) -> None:
        write_json(self.path, values)
        self.values = values  # only now: a failed write leaves both as they were
