"""Trackio (`logger=trackio`): a local database, shown by `trackio show`."""

import contextlib
import io
from pathlib import Path
from typing import Any

from kdrun.report.trackers import run_settings, scalars


class TrackioLogger:
    """A Trackio run named after the folder, with the run's settings; a resumed run continues it.

    project: for `trackio show --project`. Data stay on this machine unless space_id names a Hugging
    Face Space.
    """

    def __init__(self, folder: Path, project: str = "kdrun", space_id: str | None = None) -> None:
        import trackio

        with _quietly():
            self.run = trackio.init(
                project=project,
                name=folder.name,
                space_id=space_id,
                config=run_settings(folder),
                resume="allow",
            )

    def log(self, row: dict[str, Any]) -> None:
        """Record the row of an epoch."""
        values = scalars(row)
        values["steps"] = values.pop("step", 0.0)  # `step` is reserved by Trackio
        self.run.log({"epoch": row["epoch"], **values})

    def close(self) -> None:
        """End the run; waits until all rows are stored."""
        with _quietly():
            self.run.finish()


def _quietly() -> contextlib.redirect_stdout[io.StringIO]:
    """Suppress the messages that Trackio prints."""
    return contextlib.redirect_stdout(io.StringIO())
