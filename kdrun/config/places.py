"""Where kdrun writes and sends: chosen by the user, never by a run or sweep from elsewhere.

Three settings name a place that is written to: `output_root`, the logger (a tracker's folder or
server), and `dataset.root` of a data set that may be downloaded. What the user types is remembered
like trusted code (see `kdrun.config.trust`): per user and machine, outside any run folder. Of a
configuration that is read from a file,

- `output_root` is not used: a run that goes on writes below the output root that it lies in;
- a logger that the user never typed is left out;
- nothing is downloaded into a folder that the user never typed.
"""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from kdrun.config import trust
from kdrun.config.schema import (
    DatasetConfig,
    DistillConfig,
    LoggerConfig,
    RuntimeConfig,
    TrainTeacherConfig,
)
from kdrun.errors import ConfigError
from kdrun.files import canonical_hash

RunConfig = TypeVar("RunConfig", DistillConfig, TrainTeacherConfig)

DEFAULT_ROOT = RuntimeConfig().output_root
DEFAULT_DATA = "data"
# These write into the run's folder alone.
LOCAL_LOGGERS = (None, "kdrun.report.tensorboard.TensorBoardLogger")

_read_only: set[Path] = set()


def typed(config: Any) -> None:
    """The user typed this configuration: remember the places that it names.

    Within `trust.words_of` the words are somebody else's: raises ConfigError for a place that the
    user never typed.
    """
    source = trust.current_source()
    lines = _lines(config)
    if source is None:
        _read_only.clear()
        trust.remember(line for _, line in lines)
        return
    for name, line in lines:
        if not trust.is_remembered(line):
            raise ConfigError(
                f"{source} was not started by you on this machine, and its {name} would choose "
                "where kdrun writes: type the command yourself, with a place of yours."
            )


def resumed(config: RunConfig, folder: Path, verb: str) -> tuple[RunConfig, list[str]]:
    """The configuration of a run in `folder` as it goes on here, and what was changed about it."""
    notes = []
    runtime = config.runtime
    root = _root_of(folder, verb)
    if _absolute(runtime.output_root) != _absolute(root):
        notes.append(
            f"output_root={runtime.output_root} of config.yaml is not used: writing below {root}"
        )
        runtime = replace(runtime, output_root=str(root))
    logger = config.logger
    if not _is_known_logger(logger):
        notes.append(f"logger={logger.name} is left out: you did not type it on this machine")
        logger = LoggerConfig("none")
    read_only(config.dataset)
    return replace(config, runtime=runtime, logger=logger), notes


def read_only(dataset: DatasetConfig) -> None:
    """From here on nothing is downloaded into this data set's root, if the user never typed it."""
    line = _download_line(dataset)
    if line is not None and not trust.is_remembered(line):
        _read_only.add(_absolute(str(dataset.kwargs.get("root"))))


def may_download(root: Path) -> bool:
    """Whether files may be downloaded into this folder."""
    return _absolute(root) not in _read_only


def _lines(config: Any) -> list[tuple[str, str]]:
    """(setting, line to remember) of every place of a configuration that is not a default."""
    config = getattr(config, "distill", config)
    found = []
    root = config.runtime.output_root
    if root != DEFAULT_ROOT:
        found.append((f"output_root={root}", _place("output", root)))
    logger = getattr(config, "logger", None)
    if logger is not None and logger.target not in LOCAL_LOGGERS:
        found.append((f"logger={logger.name}", _logger_line(logger)))
    dataset = getattr(config, "dataset", None)
    line = None if dataset is None else _download_line(dataset)
    if dataset is not None and line is not None:
        found.append((f"dataset.root={dataset.kwargs.get('root')}", line))
    out = getattr(config, "out", None)
    if out is not None:
        found.append((f"out={out}", _place("output", out)))
    return found


def _download_line(dataset: DatasetConfig) -> str | None:
    """The line of the folder that this data set may be downloaded to; None for no such folder."""
    root = str(dataset.kwargs.get("root", DEFAULT_DATA))
    if root == DEFAULT_DATA or dataset.kwargs.get("download") is False:
        return None
    if not trust.is_shipped(dataset.target):
        return None  # code of the user's own, trusted as such
    return _place("data", root)


def _is_known_logger(logger: LoggerConfig) -> bool:
    return logger.target in LOCAL_LOGGERS or trust.is_remembered(_logger_line(logger))


def _logger_line(logger: LoggerConfig) -> str:
    return f"logger {canonical_hash(asdict(logger))}"


def _place(kind: str, path: str) -> str:
    return f"{kind} {canonical_hash(str(_absolute(path)))}"


def _root_of(folder: Path, verb: str) -> Path:
    """The output root that a run's folder lies in, `ROOT/<verb>/<data set>/<name>/<stamp>`.

    The default for a folder that lies elsewhere.
    """
    parents = _absolute(folder).parents
    return parents[3] if len(parents) > 3 and parents[2].name == verb else Path(DEFAULT_ROOT)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))
