"""Experiment trackers, chosen by `logger=`.

A tracker receives a copy of the metrics in the run folder, which stay authoritative. One that fails
during a run (no network, a full disk) is disabled for the rest of it, with a warning.
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
    """Receives the rows of `metrics.jsonl`.

    The constructor takes the settings of its YAML and the run's `folder`: it has a unique name,
    which a resumed run keeps, and contains `config.yaml`. An epoch may come twice, after a killed
    run is resumed from its last checkpoint.
    """

    def log(self, row: dict[str, Any]) -> None:
        """Record the row of an epoch."""

    def close(self) -> None:
        """Called after the last row."""


# The package that each shipped tracker needs; also the name of the extra.
PACKAGES = {
    "kdrun.report.wandb.WandbLogger": "wandb",
    "kdrun.report.mlflow.MlflowLogger": "mlflow",
    "kdrun.report.trackio.TrackioLogger": "trackio",
    "kdrun.report.tensorboard.TensorBoardLogger": "tensorboard",
}


def require_tracker(config: LoggerConfig) -> None:
    """Raise MissingExtraError if the tracker's package is not installed."""
    package = PACKAGES.get(config.target or "")
    if package is not None and importlib.util.find_spec(package) is None:
        raise _missing(config)


def _missing(config: LoggerConfig) -> MissingExtraError:
    package = PACKAGES[str(config.target)]
    return MissingExtraError(package, package, f"logger={config.name}")


@contextmanager
def open_tracker(
    config: LoggerConfig, folder: Path, warn: Callable[[str], None]
) -> Iterator[Callable[[list[dict[str, Any]]], None] | None]:
    """Yield a function that passes rows to the configured tracker; None without one.

    Raises ConfigError for a tracker that is not installed or cannot be constructed.
    """
    if config.target is None or not world().is_main:
        yield None
        return
    tracker: Tracker | None
    try:
        tracker = build.call(config.target, config.kwargs, "logger", folder=folder)
    except ImportError:
        if config.target not in PACKAGES:
            raise
        raise _missing(config) from None

    def attempt(call: Callable[[Tracker], None]) -> None:
        nonlocal tracker
        if tracker is None:
            return
        try:
            call(tracker)
        except Exception as error:  # clients raise anything
            tracker = None
            warn(f"logger={config.name} failed and is disabled for the rest of this run: {error!r}")

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            attempt(lambda tracker, row=row: tracker.log(row))  # type: ignore[misc]

    try:
        yield write
    finally:
        attempt(lambda tracker: tracker.close())


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row by name, prefixed with the phase for a pre-training phase."""
    phase = row.get("phase", "main")
    prefix = "" if phase == "main" else f"{phase}/"
    return {
        f"{prefix}{name}": float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch"
    }


def run_settings(folder: Path) -> dict[str, Any]:
    """The run's configuration with dotted names."""
    return flatten(read_run(folder).config)
