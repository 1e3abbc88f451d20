"""Published figures, to stand beside measured ones: `published/*.yaml` in a folder of configs.

A file says where its figures are from and has a row per figure:

    source, table: the paper and where in it     schedule: what it took, e.g. full schedule
    dataset, metric (top1, in percent, or errors): for all rows, or in a row
    rows: {teacher, student, loss, T, value}      without `teacher`: a network on labels alone

A row matches runs with the same names of data set, teacher, student and loss (`kd`, `kd+sp`), and
the same T if it gives one. Whether anything else agrees is not checked, and is said so.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from kdrun.errors import ConfigError, did_you_mean
from kdrun.report.records import LOADER
from kdrun.report.settings import NONE, Settings, text

FOLDER = "published"
METRICS = {"top1": "%", "errors": "errors"}
KEYS = ("teacher", "student", "loss", "T", "value", "dataset", "metric")
FILE_KEYS = ("source", "table", "schedule", "dataset", "metric", "rows")


@dataclass(frozen=True)
class Figure:
    """One published figure. T: None matches any."""

    dataset: str
    teacher: str
    student: str
    loss: str
    T: float | None
    metric: str
    value: float
    source: str
    table: str
    schedule: str

    @property
    def shown(self) -> str:
        """`72.94 %` or `74 errors`."""
        value = f"{self.value:.2f}" if self.metric == "top1" else f"{self.value:g}"
        return f"{value} {METRICS[self.metric]}"


@dataclass(frozen=True)
class Match:
    """What is published about one row of a report: any of the three may be missing."""

    teacher: Figure | None
    alone: Figure | None
    distilled: Figure | None

    @property
    def figures(self) -> list[Figure]:
        """Those that are there."""
        return [one for one in (self.teacher, self.alone, self.distilled) if one is not None]

    @property
    def shown(self) -> str:
        """`teacher 79.42 %, alone 72.50 %, distilled 72.94 % (full schedule, 240 epochs)`."""
        named = (("teacher", self.teacher), ("alone", self.alone), ("distilled", self.distilled))
        parts = [f"{name} {figure.shown}" for name, figure in named if figure is not None]
        return f"{', '.join(parts)} ({self.figures[0].schedule})" if parts else ""


def read_published(config_dir: Path | None = None) -> list[Figure]:
    """All figures that ship with kdrun, and those of the user's own folder of configs.

    Raises ConfigError for a file that is not of this form.
    """
    package = Path(next(iter(importlib.import_module("kdrun.configs").__path__)))
    roots = [package, *([config_dir] if config_dir is not None else [])]
    files = [path for root in roots for path in sorted((root / FOLDER).glob("*.yaml"))]
    return [figure for path in files for figure in read_file(path)]


def read_file(path: Path) -> list[Figure]:
    """The figures of one file. Raises ConfigError naming the row that is not of this form."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise ConfigError(f"{path} needs rows: a list of {{student, loss, value, ...}}.")
    _check_keys(path, "the file", content, FILE_KEYS)
    return [_figure(path, place, row, content) for place, row in enumerate(content["rows"], 1)]


def match(settings: Settings, figures: Iterable[Figure]) -> Match | None:
    """What is published about runs with these settings; None when nothing is."""
    figures = list(figures)
    dataset, teacher = settings.get("dataset", ""), settings.get("teacher", NONE)
    student, T = settings.get("student", ""), settings.get("T")
    distilled = _find(figures, dataset, teacher, student, settings.get("loss", ""), T)
    if teacher == NONE:
        found = Match(None, distilled, None)
    else:
        found = Match(
            _find(figures, dataset, NONE, teacher, "ce", None),
            _find(figures, dataset, NONE, student, "ce", None),
            distilled,
        )
    return found if found.figures else None


def _find(
    figures: list[Figure], dataset: str, teacher: str, student: str, loss: str, T: str | None
) -> Figure | None:
    """The last one that fits, so that a user's own figures come before those of kdrun."""
    fitting = [
        figure
        for figure in figures
        if (figure.dataset, figure.teacher, figure.student, figure.loss)
        == (dataset, teacher, student, loss)
        and (figure.T is None or text(figure.T) == T)
    ]
    return fitting[-1] if fitting else None


def _figure(path: Path, place: int, row: Any, content: dict[str, Any]) -> Figure:
    where = f"{path}, row {place}"
    if not isinstance(row, dict):
        raise ConfigError(f"{where} is not of the form {{student: ..., loss: ..., value: ...}}.")
    _check_keys(path, f"row {place}", row, KEYS)
    both = {**content, **row}
    for key in ("dataset", "student", "loss", "value", "metric"):
        if both.get(key) is None:
            raise ConfigError(f"{where} has no {key}.")
    if both["metric"] not in METRICS:
        raise ConfigError(f"{where}: metric is {both['metric']}; it is {' or '.join(METRICS)}.")
    for key in ("value", "T"):
        if not isinstance(both.get(key, 0), int | float):
            raise ConfigError(f"{where}: {key} is not a number.")
    return Figure(
        dataset=str(both["dataset"]),
        teacher=str(both.get("teacher") or NONE),
        student=str(both["student"]),
        loss=str(both["loss"]),
        T=None if both.get("T") is None else float(both["T"]),
        metric=both["metric"],
        value=float(both["value"]),
        source=str(both.get("source", path.name)),
        table=str(both.get("table", "")),
        schedule=str(both.get("schedule", "full schedule")),
    )


def _check_keys(path: Path, what: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known) or f" It has {', '.join(known)}."
            raise ConfigError(f"{path}: {what} has an unknown key '{key}'.{hint}")
