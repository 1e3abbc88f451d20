"""Trackers beside the files of the run folder: one small protocol, chosen by `logger=`.

The files are always written and are the truth. A tracker is a view of them: one that fails while a
run goes on (a network that is gone, a full disk) is left out for the rest of it, and says so.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from kdrun.config import build
from kdrun.config.schema import LoggerConfig
from kdrun.errors import MissingExtraError
from kdrun.report.records import read_run
from kdrun.report.settings import flatten
from kdrun.world import world


class Tracker(Protocol):
    """Takes what `metrics.jsonl` gets.

    Its constructor takes the settings of its YAML and the run's `folder`, whose name is unique and
    stays the same when the run is continued; `config.yaml` is there already. An epoch may come
    twice, when a run that was killed goes on from its last checkpoint.
    """

    def log(self, row: dict[str, Any]) -> None:
        """One epoch's row."""

    def close(self) -> None:
        """Nothing more comes."""


# Shipped trackers: the package each needs, which is also the name of its extra.
PACKAGES = {
    "kdrun.report.wandb.WandbLogger": "wandb",
    "kdrun.report.mlflow.MlflowLogger": "mlflow",
    "kdrun.report.trackio.TrackioLogger": "trackio",
    "kdrun.report.tensorboard.TensorBoardLogger": "tensorboard",
}


def require_tracker(config: LoggerConfig) -> None:
    """Raise MissingExtraError, before anything is trained, if the tracker is not installed."""
    package = PACKAGES.get(config.target or "")
    if package is not None and importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, package, f"logger={config.name}")


@contextmanager
def open_tracker(
    config: LoggerConfig, folder: Path, warn: Callable[[str], None]
) -> Iterator[Callable[[list[dict[str, Any]]], None] | None]:
    """A function that passes rows to the configured tracker; None when there is none.

    Raises ConfigError for a tracker that is not installed or cannot be made.
    """
    if config.target is None or not world().is_main:
        yield None
        return
    tracker: Tracker | None = build.call(config.target, config.kwargs, "logger", folder=folder)

    def attempt(call: Callable[[Tracker], None]) -> None:
        nonlocal tracker
        if tracker is None:
            return
        try:
            call(tracker)
        except Exception as error:  # whatever another program's client raises
            tracker = None
            warn(f"logger={config.name} failed and gets nothing more of this run: {error!r}")

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            attempt(lambda tracker, row=row: tracker.log(row))  # type: ignore[misc]

    try:
        yield write
    finally:
        attempt(lambda tracker: tracker.close())


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row by name; those of a pre-training phase with its name before them."""
    phase = row.get("phase", "main")
    prefix = "" if phase == "main" else f"{phase}/"
    return {
        f"{prefix}{name}": float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch"
    }


def run_settings(folder: Path) -> dict[str, Any]:
    """The run's configuration with dotted names, for a tracker's table of settings."""
    return flatten(read_run(folder).config)
