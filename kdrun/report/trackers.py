"""Trackers beside the files of the run folder: one small protocol, chosen by `logger=`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from kdrun.config import build
from kdrun.config.schema import LoggerConfig


class Tracker(Protocol):
    """Takes what `metrics.jsonl` gets."""

    def log(self, row: dict[str, Any]) -> None:
        """One epoch's row."""

    def close(self) -> None:
        """Nothing more comes."""


@contextmanager
def open_tracker(
    config: LoggerConfig, folder: Path
) -> Iterator[Callable[[list[dict[str, Any]]], None] | None]:
    """A function that passes rows to the configured tracker; None when there is none."""
    if config.target is None:
        yield None
        return
    tracker: Tracker = build.call(config.target, config.kwargs, "logger", folder=folder)

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            tracker.log(row)

    try:
        yield write
    finally:
        tracker.close()
