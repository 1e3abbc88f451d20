"""Published figures, to stand beside measured ones: `published/*.yaml` in a folder of configs.

A file says where its figures are from and has a row per figure:

    source, table: the paper and where in it     schedule: what it took, e.g. full schedule
    dataset, metric (one of `METRICS`): for all rows, or in a row
    unverified: true where the figures were not checked against the source
    rows: {teacher, student, loss, T, value}      without `teacher`: a network on labels alone

and, where a row has them,

    teachers: so many of the teacher teach        together: so many of the student answer at once
    transfer: what the student saw of the data, in the words of `transfer`
    corrected: true after the correction of the left-out classes' bias
    tokens: distillation tokens of the student

A row matches runs with the same names of data set, teachers, student and loss (`kd`, `kd+sp`), the
same transfer set, the same T and tokens if it gives them. Whether anything else agrees is not
checked, and is said so.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError, did_you_mean
from kdrun.limits import read_yaml
from kdrun.report.settings import NONE, Settings, text

FOLDER = "published"
METRICS = {
    "top1": "%",
    "error": "% error",
    "errors": "errors",
    "errors_left_out": "errors in the left-out classes",
    "word_error": "% word error",
    "train_top1": "% in training",
}
COUNTS = ("errors", "errors_left_out")
KEYS = (
    *("teacher", "student", "loss", "T", "value", "dataset", "metric", "teachers", "together"),
    *("transfer", "corrected", "tokens"),
)
FILE_KEYS = ("source", "table", "schedule", "dataset", "metric", "unverified", "rows")
# What makes a transfer set another one, and its value where all training images are used.
TRANSFER = {
    "exclude_classes": "[]",
    "only_classes": "[]",
    "fraction": "1",
    "labels": "true",
    "folder": "null",
}


@dataclass(frozen=True)
class Figure:
    """One published figure.

    teacher: `a+b` for several. T, tokens: None matches any. together: networks that answer at once.
    transfer: the settings of `transfer` that are not the usual ones, as text.
    """

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
    transfer: Mapping[str, str] = field(default_factory=dict)
    together: int = 1
    corrected: bool = False
    tokens: int | None = None
    unverified: bool = False

    @property
    def shown(self) -> str:
        """`72.94 %` or `74 errors`; `8.13 % error, not verified`."""
        value = f"{self.value:g}" if self.metric in COUNTS else f"{self.value:.2f}"
        doubt = ", not verified" if self.unverified else ""
        return f"{value} {METRICS[self.metric]}{doubt}"

    @property
    def meaning(self) -> tuple[str, bool]:
        """Equal for figures that say the same thing of a run."""
        return self.metric, self.corrected


@dataclass(frozen=True)
class Match:
    """What is published about one row of a report; any of these may be missing.

    together: several teachers' joint answer.
    """

    teacher: list[Figure]
    together: list[Figure]
    alone: list[Figure]
    distilled: list[Figure]

    @property
    def figures(self) -> list[Figure]:
        """Those that are there."""
        return [*self.teacher, *self.together, *self.alone, *self.distilled]

    @property
    def shown(self) -> str:
        """`teacher 79.42 %, alone 72.50 %, distilled 72.94 % (full schedule, 240 epochs)`."""
        named = (
            ("teacher", self.teacher),
            ("teachers together", self.together),
            ("alone", self.alone),
            ("distilled", self.distilled),
        )
        parts = [
            f"{name}{', bias corrected,' if figure.corrected else ''} {figure.shown}"
            for name, figures in named
            for figure in figures
        ]
        schedules = list(dict.fromkeys(figure.schedule for figure in self.figures))
        return f"{', '.join(parts)} ({'; '.join(schedules)})" if parts else ""


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
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise ConfigError(f"{path} needs rows: a list of {{student, loss, value, ...}}.")
    _check_keys(path, "the file", content, FILE_KEYS)
    return [_figure(path, place, row, content) for place, row in enumerate(content["rows"], 1)]


def match(settings: Settings, figures: Iterable[Figure]) -> Match | None:
    """What is published about runs with these settings; None when nothing is."""
    figures = [one for one in figures if one.dataset == settings.get("dataset", "")]
    teacher, student = settings.get("teacher", NONE), settings.get("student", "")
    transfer = transfer_of(settings)
    distilled = _find(
        figures,
        (teacher, student, settings.get("loss", ""), 1, transfer),
        settings.get("T"),
        settings.get("student.distillation_tokens"),
    )
    if teacher == NONE:
        found = Match([], [], distilled, [])
    else:
        names = teacher.split("+")
        one = names[0] if len(set(names)) == 1 else ""
        several = len(names) if len(names) > 1 else 0
        found = Match(
            _find(figures, (NONE, one, "ce", 1, {})),
            _find(figures, (NONE, one, "ce", several, {})),
            _find(figures, (NONE, student, "ce", 1, transfer)),
            distilled,
        )
    return found if found.figures else None


def transfer_of(settings: Settings) -> dict[str, str]:
    """The settings of the transfer set that are not the usual ones."""
    found = {key: settings.get(f"transfer.{key}", usual) for key, usual in TRANSFER.items()}
    return {key: value for key, value in found.items() if value != TRANSFER[key]}


def _find(
    figures: list[Figure],
    what: tuple[str, str, str, int, Mapping[str, str]],
    T: str | None = None,
    tokens: str | None = None,
) -> list[Figure]:
    """Of each kind the last one that fits: a user's own figures come before those of kdrun."""
    fitting = [
        figure
        for figure in figures
        if (figure.teacher, figure.student, figure.loss, figure.together, figure.transfer) == what
        and (figure.T is None or text(figure.T) == T)
        and (figure.tokens is None or text(figure.tokens) == tokens)
    ]
    return list({figure.meaning: figure for figure in fitting}.values())


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
    for key in ("value", "T", "teachers", "together", "tokens"):
        if not isinstance(both.get(key, 0), int | float):
            raise ConfigError(f"{where}: {key} is not a number.")
    transfer = both.get("transfer") or {}
    if not isinstance(transfer, dict):
        raise ConfigError(f"{where}: transfer is not of the form {{fraction: 0.03}}.")
    _check_keys(path, f"transfer of row {place}", transfer, tuple(TRANSFER))
    return Figure(
        dataset=str(both["dataset"]),
        teacher="+".join([str(both.get("teacher") or NONE)] * int(both.get("teachers", 1))),
        student=str(both["student"]),
        loss=str(both["loss"]),
        T=None if both.get("T") is None else float(both["T"]),
        metric=both["metric"],
        value=float(both["value"]),
        source=str(both.get("source", path.name)),
        table=str(both.get("table", "")),
        schedule=str(both.get("schedule", "full schedule")),
        transfer={key: text(value) for key, value in transfer.items()},
        together=int(both.get("together", 1)),
        corrected=bool(both.get("corrected", False)),
        tokens=None if both.get("tokens") is None else int(both["tokens"]),
        unverified=bool(both.get("unverified", False)),
    )


def _check_keys(path: Path, what: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known) or f" It has {', '.join(known)}."
            raise ConfigError(f"{path}: {what} has an unknown key '{key}'.{hint}")
