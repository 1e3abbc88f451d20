"""Trackio (`logger=trackio`): a local database, shown by `trackio show`."""

import contextlib
import io
from pathlib import Path
from typing import Any

from kdrun.errors import MissingExtraError
from kdrun.report.trackers import run_settings, scalars


class TrackioLogger:
    """A Trackio run of the folder's name, with the run's settings; a continued run goes on in it.

    project: where it is shown (`trackio show --project kdrun`). Nothing leaves this machine unless
    space_id names a Hugging Face Space.
    """

    def __init__(self, folder: Path, project: str = "kdrun", space_id: str | None = None) -> None:
        try:
            import trackio
        except ImportError:
            raise MissingExtraError("trackio", "trackio", "logger=trackio") from None
        with _quietly():
            self.run = trackio.init(
                project=project,
                name=folder.name,
                space_id=space_id,
                config=run_settings(folder),
                resume="allow",
            )

    def log(self, row: dict[str, Any]) -> None:
        """One epoch's row."""
        values = scalars(row)
        values["steps"] = values.pop("step", 0.0)  # Trackio keeps `step` for itself
        self.run.log({"epoch": row["epoch"], **values})

    def close(self) -> None:
        """Wait until everything is stored."""
        with _quietly():
            self.run.finish()


def _quietly() -> contextlib.redirect_stdout[io.StringIO]:
    """Trackio says on standard output where to look; the screen is kdrun's."""
    return contextlib.redirect_stdout(io.StringIO())
