"""Published metrics, shown next to measured ones: `published/*.yaml` in a folder of configs.

A file names its source and has a row per metric:

    source, table: the paper, and where in it    schedule: how it was trained, e.g. full schedule
    dataset, metric (one of `METRICS`): for all rows, or in a row
    unverified: true where the values were not checked against the source
    rows: {teacher, student, loss, T, value}     without `teacher`: trained on labels only

Optional keys of a row:

    teachers: number of teachers with this architecture    together: size of a student ensemble
    transfer: the transfer set, in the settings of `transfer`
    corrected: true after the bias correction of left-out classes
    tokens: number of distillation tokens of the student
    regions: those of the loss (`loss.ID.regions`); without them a row matches runs without regions

A row matches runs with the same names of data set, teachers, student and loss (`kd`, `kd+sp`), the
same transfer set, and the same T and tokens where it gives them. Nothing else is compared, and the
column's heading says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.config.shipped import config_folders
from kdrun.errors import ConfigError, did_you_mean
from kdrun.limits import read_yaml
from kdrun.report.settings import ABSENT, NONE, Settings, text

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
    *("transfer", "corrected", "tokens", "regions"),
)
FILE_KEYS = ("source", "table", "schedule", "dataset", "metric", "unverified", "rows")
# The settings that define a transfer set, and their defaults.
TRANSFER = {
    "exclude_classes": "[]",
    "only_classes": "[]",
    "fraction": "1",
    "labels": "true",
    "folder": "null",
}


@dataclass(frozen=True)
class PublishedMetric:
    """A published metric.

    teacher: `a+b` for several. T, tokens: None matches any. together: size of the ensemble.
    transfer: settings of `transfer` that differ from their defaults, as text.
    regions: of the loss, as text; `none` for the logits alone.
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
    regions: str = NONE
    unverified: bool = False

    @property
    def shown(self) -> str:
        """`72.94 %` or `74 errors`; `8.13 % error, not verified`."""
        value = f"{self.value:g}" if self.metric in COUNTS else f"{self.value:.2f}"
        doubt = ", not verified" if self.unverified else ""
        return f"{value} {METRICS[self.metric]}{doubt}"

    @property
    def meaning(self) -> tuple[str, bool]:
        """Equal for values that measure the same."""
        return self.metric, self.corrected


@dataclass(frozen=True)
class Match:
    """What is published about a row of a report. together: the ensemble of several teachers."""

    teacher: list[PublishedMetric]
    together: list[PublishedMetric]
    alone: list[PublishedMetric]
    distilled: list[PublishedMetric]

    @property
    def metrics(self) -> list[PublishedMetric]:
        """All of them."""
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
            f"{name}{', bias corrected,' if metric.corrected else ''} {metric.shown}"
            for name, metrics in named
            for metric in metrics
        ]
        schedules = list(dict.fromkeys(metric.schedule for metric in self.metrics))
        return f"{', '.join(parts)} ({'; '.join(schedules)})" if parts else ""


def read_published(config_dir: Path | None = None) -> list[PublishedMetric]:
    """The metrics that ship with kdrun, and those of the user's config folder.

    Raises ConfigError for a malformed file.
    """
    folders = config_folders(config_dir)
    files = [path for folder in folders for path in sorted((folder / FOLDER).glob("*.yaml"))]
    return [metric for path in files for metric in read_file(path)]


def read_file(path: Path) -> list[PublishedMetric]:
    """The metrics of a file. Raises ConfigError naming a malformed row."""
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise ConfigError(f"{path} needs rows: a list of {{student, loss, value, ...}}.")
    _check_keys(path, "the file", content, FILE_KEYS)
    return [_metric(path, place, row, content) for place, row in enumerate(content["rows"], 1)]


def match(settings: Settings, metrics: Iterable[PublishedMetric]) -> Match | None:
    """What is published about runs with these settings; None for nothing."""
    metrics = [one for one in metrics if one.dataset == settings.get("dataset", "")]
    teacher, student = settings.get("teacher", NONE), settings.get("student", "")
    transfer = transfer_of(settings)
    distilled = _find(
        metrics,
        (teacher, student, settings.get("loss", ""), 1, transfer),
        settings.get("T"),
        settings.get("student.distillation_tokens"),
        _regions(settings),
    )
    if teacher == NONE:
        matched = Match([], [], distilled, [])
    else:
        names = teacher.split("+")
        one = names[0] if len(set(names)) == 1 else ""
        several = len(names) if len(names) > 1 else 0
        matched = Match(
            _find(metrics, (NONE, one, "ce", 1, {})),
            _find(metrics, (NONE, one, "ce", several, {})),
            _find(metrics, (NONE, student, "ce", 1, transfer)),
            distilled,
        )
    return matched if matched.metrics else None


def transfer_of(settings: Settings) -> dict[str, str]:
    """The settings of the transfer set that differ from their defaults."""
    values = {key: settings.get(f"transfer.{key}", default) for key, default in TRANSFER.items()}
    return {key: value for key, value in values.items() if value != TRANSFER[key]}


def _regions(settings: Settings) -> str:
    """The regions of the run's losses, as text; `none` without more than the whole map."""
    found = (settings.get(f"loss.{name}.regions") for name in settings.get("loss", "").split("+"))
    return next((value for value in found if value not in (None, ABSENT, "[1]")), NONE)


def _find(
    metrics: list[PublishedMetric],
    what: tuple[str, str, str, int, Mapping[str, str]],
    T: str | None = None,
    tokens: str | None = None,
    regions: str = NONE,
) -> list[PublishedMetric]:
    """The last match of each kind: a user's own values override those of kdrun.

    what: teacher, student, losses in any order, size of the ensemble, transfer set.
    """
    teacher, student, loss, together, transfer = what
    losses = sorted(loss.split("+"))
    fitting = [
        metric
        for metric in metrics
        if (metric.teacher, metric.student, metric.together) == (teacher, student, together)
        and sorted(metric.loss.split("+")) == losses
        and metric.transfer == transfer
        and (metric.T is None or text(metric.T) == T)
        and (metric.tokens is None or text(metric.tokens) == tokens)
        and metric.regions == regions
    ]
    return list({metric.meaning: metric for metric in fitting}.values())


def _metric(path: Path, place: int, row: Any, content: dict[str, Any]) -> PublishedMetric:
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
    return PublishedMetric(
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
        regions=NONE if both.get("regions") is None else text(list(both["regions"])),
        unverified=bool(both.get("unverified", False)),
    )


def _check_keys(path: Path, what: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known) or f" It has {', '.join(known)}."
            raise ConfigError(f"{path}: {what} has an unknown key '{key}'.{hint}")
