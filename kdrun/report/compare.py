"""What differs between two runs: settings, environment, results."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError
from kdrun.report.metrics_table import COMPARE, Metric, metrics_of
from kdrun.report.records import Run, collect
from kdrun.report.settings import ABSENT, flatten, settings_of, text
from kdrun.runs.reading import DAMAGED, UNREADABLE

# Entries of env.json without effect on the result.
IGNORED = ("executable",)


@dataclass(frozen=True)
class Line:
    """A setting, fact or metric of two runs. difference: B minus A, for numbers."""

    name: str
    a: str
    b: str
    difference: str = ""

    @property
    def same(self) -> bool:
        """Whether both runs have the same value."""
        return self.a == self.b


@dataclass(frozen=True)
class Comparison:
    """Two runs. parts: title → lines."""

    a: Run
    b: Run
    parts: dict[str, list[Line]]


def one_run(folder: Path) -> Run:
    """The run in a folder, or the only one below it.

    Raises ConfigError for folders that do not exist, and those with several runs or none.
    """
    runs = collect([folder]).everything
    if len(runs) > 1:
        raise ConfigError(
            f"{folder} holds {len(runs)} runs and compare takes one: {runs[0].folder}, "
            f"{runs[1].folder}, ... kdrun report {folder} shows them all."
        )
    if runs[0].status == UNREADABLE:
        raise ConfigError(f"{runs[0].folder}/result.json cannot be read.")
    if runs[0].status == DAMAGED:
        raise ConfigError(runs[0].error)
    return runs[0]


def compare(a: Run, b: Run) -> Comparison:
    """All settings, environment entries and metrics of both runs."""
    environments = [_flat_text(run.environment) for run in (a, b)]
    return Comparison(
        a,
        b,
        {
            "settings": _lines(*(_settings(run) for run in (a, b))),
            "environment": _lines(*environments),
            "results": _results(a, b),
        },
    )


def _settings(run: Run) -> dict[str, str]:
    """The settings as a report names them, then the rest of the configuration."""
    known = settings_of(run)
    configured = {
        key: text(value)
        for key, value in flatten(run.config).items()
        if not key.startswith("schedule.") or key.split(".")[1] not in run.config
    }
    named = {f"{group}.name" for group in ("dataset", "teacher", "student", "scheme")}
    others = {key: value for key, value in configured.items() if key not in {*known, *named}}
    return {**known, **others}


def _results(a: Run, b: Run) -> list[Line]:
    lines = [Line("status", a.status, b.status)]
    objectives = [run.result.objective or ABSENT for run in (a, b)]
    lines.append(Line("objective", objectives[0], objectives[1]))
    for metric in metrics_of(COMPARE, [a, b]):
        lines += _metric_line(metric, metric.read(a), metric.read(b))
    return lines


def _metric_line(metric: Metric, a: float | None, b: float | None) -> list[Line]:
    if a is None and b is None:
        return []
    text_a, text_b = (ABSENT if value is None else metric.show(value) for value in (a, b))
    difference = ""
    if a is not None and b is not None and a != b:
        sign = "+" if b > a else "-"
        difference = sign + metric.show(abs(b - a)).lstrip("+")
    return [Line(metric.name, text_a, text_b, difference)]


def _lines(a: Mapping[str, str], b: Mapping[str, str]) -> list[Line]:
    return [
        Line(name, a.get(name, ABSENT), b.get(name, ABSENT)) for name in dict.fromkeys([*a, *b])
    ]


def _flat_text(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: text(value) for key, value in flatten(values).items() if key not in IGNORED}
