"""Where kdrun writes and sends: chosen by the user, never by an untrusted run or sweep.

Three settings name a place to write to: `output_root`, the logger (a tracker's folder or server),
and `dataset.root` of a data set that can be downloaded. Typed places are recorded like trusted code
(see `kdrun.config.trust`): per user and machine, outside any run folder. In a configuration that is
read from a file,

- `output_root` is ignored: a resumed run writes below the output root that contains it;
- a logger that the user never typed is dropped;
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
# Loggers that write only into the run folder.
LOCAL_LOGGERS = (None, "kdrun.report.tensorboard.TensorBoardLogger")

_read_only: set[Path] = set()


def record(config: Any) -> None:
    """Record the places that a typed configuration names.

    Within `trust.untrusted_source`: raises ConfigError for a place that the user never typed.
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
    """(the configuration with which a run in `folder` resumes, notes about what was changed)."""
    notes = []
    runtime = config.runtime
    root = _root_of(folder, verb)
    if _absolute(runtime.output_root) != _absolute(root):
        notes.append(
            f"output_root={runtime.output_root} of config.yaml is ignored: writing below {root}"
        )
        runtime = replace(runtime, output_root=str(root))
    logger = config.logger
    if not _is_known_logger(logger):
        notes.append(f"logger={logger.name} is dropped: you did not type it on this machine")
        logger = LoggerConfig("none")
    read_only(config.dataset)
    return replace(config, runtime=runtime, logger=logger), notes


def read_only(dataset: DatasetConfig) -> None:
    """Forbid downloads into this data set's root if the user never typed it."""
    line = _download_line(dataset)
    if line is not None and not trust.is_remembered(line):
        _read_only.add(_absolute(str(dataset.kwargs.get("root"))))


def may_download(root: Path) -> bool:
    """Whether files may be downloaded into this folder."""
    return _absolute(root) not in _read_only


def _lines(config: Any) -> list[tuple[str, str]]:
    """(setting, line to record) of every place in a configuration that is not a default."""
    config = getattr(config, "distill", config)
    lines = []
    root = config.runtime.output_root
    if root != DEFAULT_ROOT:
        lines.append((f"output_root={root}", _place("output", root)))
    logger = getattr(config, "logger", None)
    if logger is not None and logger.target not in LOCAL_LOGGERS:
        lines.append((f"logger={logger.name}", _logger_line(logger)))
    dataset = getattr(config, "dataset", None)
    line = None if dataset is None else _download_line(dataset)
    if dataset is not None and line is not None:
        lines.append((f"dataset.root={dataset.kwargs.get('root')}", line))
    out = getattr(config, "out", None)
    if out is not None:
        lines.append((f"out={out}", _place("output", out)))
    return lines


def _download_line(dataset: DatasetConfig) -> str | None:
    """The record line of the folder this data set may be downloaded to; None for none."""
    root = str(dataset.kwargs.get("root", DEFAULT_DATA))
    if root == DEFAULT_DATA or dataset.kwargs.get("download") is False:
        return None
    if not trust.is_shipped(dataset.target):
        return None  # the user's own code is checked by `trust`
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
