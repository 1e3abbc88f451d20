"""`kdrun ls runs` and `kdrun ls teachers`: run folders and the teacher store as tables.

Runs are filtered by their settings and sorted by a metric.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.checksums import find_fault
from kdrun.cli import run_index
from kdrun.cli.columns import columns
from kdrun.errors import ConfigError, did_you_mean
from kdrun.files import is_held, require_path
from kdrun.report.metrics_table import AGREEMENT, GAIN, METRICS, TEST, WINNER, Metric
from kdrun.report.records import Run, number
from kdrun.report.settings import settings_of
from kdrun.runs.reading import DAMAGED, read_run
from kdrun.runs.result import RunResult

WHEN = "when"
# Short names of the metrics that runs are sorted by most.
METRIC_NAMES = {"test": TEST, "val": WINNER, "gain": GAIN, "agreement": AGREEMENT}


@dataclass(frozen=True)
class Listed:
    """One run as listed. fault: why its result cannot be read; empty when it can be."""

    run: Run
    modified: float
    fault: str = ""

    @property
    def verb(self) -> str:
        """The command that made it."""
        return self.run.result.command or "-"

    def setting(self, name: str) -> str | None:
        """A setting by its name on the command line, as text."""
        if name == "status":
            return self.run.status
        if name in ("command", "verb"):
            return self.verb
        if name == "seed":
            return None if self.run.seed is None else str(self.run.seed)
        return settings_of(self.run).get(name)


def list_runs(
    root: Path, limit: int | None, filters: dict[str, str] | None = None, sort: str = WHEN
) -> str:
    """The runs below `root` as text: date, status, metrics, command, objective, folder.

    filters: setting → value, or several separated by commas. sort: `when`, or a metric.
    Raises ConfigError for a metric or a setting that does not exist.
    """
    metric = _metric(sort)
    entries = run_index.find_runs(root)
    if not entries:
        require_path(root / "distill")  # a disk that is not mounted is not an empty folder
        return f"There are no runs below {root}. kdrun distill makes one."
    if metric is None and not filters:
        listed, total = [_listed(entry) for entry in entries[:limit]], len(entries)
    else:
        every = [_listed(entry) for entry in entries]
        _check_names(every, filters or {})
        matches = [one for one in every if _fits(one, filters or {})]
        listed, total = _sorted(matches, metric)[:limit], len(matches)
    if not listed:
        words = " ".join(f"{name}={value}" for name, value in (filters or {}).items())
        return f"No run below {root} matches {words}."
    text = columns(_rows(listed, metric))
    if total > len(listed):
        text += f"\n\n{total - len(listed)} more: kdrun ls runs --all"
    faults = [f"damaged: {one.fault}" for one in listed if one.fault]
    return "\n".join([text, *([""] if faults else []), *faults])


def _when(modified: float) -> str:
    """`2026-01-31 12:05`."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))


def _rows(listed: Sequence[Listed], metric: Metric | None) -> list[tuple[str, ...]]:
    shown = [TEST, GAIN]
    if metric is not None and metric not in shown:
        shown.append(metric)
    if all(GAIN.read(one.run) is None for one in listed):
        shown.remove(GAIN)
    rows = [(WHEN, "status", *(one.title for one in shown), "command", "objective", "folder")]
    for one in listed:
        rows.append(
            (
                _when(one.modified),
                one.run.status,
                *(metric.with_unit(metric.read(one.run)) for metric in shown),
                one.verb,
                one.run.result.objective or "-",
                str(one.run.folder),
            )
        )
    return rows


def _listed(entry: run_index.Found) -> Listed:
    fault = read_run(entry.folder).fault
    values = {} if fault else entry.values
    status = DAMAGED if fault else _status(entry)
    return Listed(
        Run(entry.folder, RunResult.from_dict(values, check=False), status), entry.modified, fault
    )


def _status(entry: run_index.Found) -> str:
    """The status in its result; `killed` for a running one that no process works on."""
    status = str(entry.values.get("status", "unreadable"))
    return "killed" if status == "running" and not is_held(entry.folder / ".lock") else status


def _check_names(every: Sequence[Listed], filters: dict[str, str]) -> None:
    """Raise ConfigError for a filter whose name is like that of a setting, and no run has it."""
    known = {"status", "command", "verb", "seed"}
    known.update(name for one in every for name in settings_of(one.run))
    for name in filters:
        hint = "" if name in known else did_you_mean(name, sorted(known))
        if hint:
            raise ConfigError(f"ls runs: no run has a setting {name!r}.{hint}")


def _fits(one: Listed, filters: dict[str, str]) -> bool:
    """Whether a run has one of the values of every filter; loss=sp fits kd+sp as well."""
    for name, wanted in filters.items():
        value = one.setting(name)
        if value is None:
            return False
        have = {value, *(value.split("+") if name in ("loss", "teacher") else ())}
        wants = wanted.strip("[]")
        joined = wants.replace(",", "+") if wanted.startswith("[") else wants
        choices = {joined} if wanted.startswith("[") else set(wants.split(","))
        if not have & choices and not any(_equal(value, choice) for choice in choices):
            return False
    return True


def _equal(value: str, wanted: str) -> bool:
    """`4.0` and `4` are equal."""
    try:
        return float(value) == float(wanted)
    except ValueError:
        return value.lower() == wanted.lower()


def _metric(sort: str) -> Metric | None:
    """The metric to sort by; None for the date."""
    if sort == WHEN:
        return None
    known = {metric.option: metric for metric in METRICS} | METRIC_NAMES
    if sort not in known:
        names = [WHEN, *METRIC_NAMES, "seconds"]
        hint = did_you_mean(sort, [WHEN, *known]) or f" There are {', '.join(names)}."
        raise ConfigError(f"--sort {sort}: runs have no such metric.{hint}")
    return known[sort]


def _sorted(listed: list[Listed], metric: Metric | None) -> list[Listed]:
    """Best first; runs without the metric last. By date: newest first, as they come."""
    if metric is None:
        return listed
    sign = 1.0 if metric.better == "lower" else -1.0

    def key(one: Listed) -> tuple[bool, float]:
        value = metric.read(one.run)
        return value is None, sign * (value or 0.0)

    return sorted(listed, key=key)


def list_teachers(root: Path) -> str:
    """The teacher store below `root`, newest first."""
    teachers = run_index.find_teachers(root)
    if not teachers:
        require_path(root / "teachers")
        return f"The teacher store {root / 'teachers'} is empty. kdrun train-teacher fills it."
    rows = [("when", TEST.title, "network", "data set", "parameters", "folder")]
    faults = []
    for teacher in teachers:
        fault = find_fault(teacher.folder, ["teacher.json"])
        if fault:
            faults.append(f"damaged: {fault}")
            damaged = (_when(teacher.modified), "-", DAMAGED, teacher.folder.parent.name, "-")
            rows.append((*damaged, str(teacher.folder)))
            continue
        params = number(teacher.values, "params")
        top1 = number(teacher.values, "extra", "test", "top1")
        rows.append(
            (
                _when(teacher.modified),
                TEST.with_unit(top1),
                str(teacher.values.get("name", "unreadable")),
                teacher.folder.parent.name,
                "-" if params is None else f"{int(params):,}",
                str(teacher.folder),
            )
        )
    return "\n".join([columns(rows), *([""] if faults else []), *faults])
