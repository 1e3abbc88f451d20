"""The report as Markdown and as CSV, where numbers are not rounded."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdrun.csv_tables import csv_bytes
from kdrun.markdown import escaped
from kdrun.ownership import write_own
from kdrun.report.columns import SETTING, Column
from kdrun.report.content import Report, best_lines, notes, status_rows, summary
from kdrun.report.groups import DISTILL
from kdrun.report.metrics_table import RUNS, metrics_of
from kdrun.report.settings import differing, settings_of

ELSEWHERE = "name another folder: to=DIR"
STATUS_COLUMNS = ("status", "folder", "command", "why")
EXPERIMENT = "experiment"


def write_markdown(path: Path, report: Report) -> None:
    """A table per section, with its winner and verdict."""
    parts = ["# Report", escaped(summary(report))]
    if report.sections:
        parts.append("\n".join(f"- {escaped(note)}" for note in notes(report)))
    for table in report.sections:
        parts.append(f"## {escaped(table.title)}")
        parts.append("\n".join(f"- {escaped(line)}" for line in best_lines(table.section)))
        parts.append(_markdown([column for column in table.columns if not column.setting]))
        if table.parts:
            parts += ["Networks that belong to these rows:", _markdown(table.parts)]
    for listing in report.others:
        parts += [f"## {listing.title}", _markdown(listing.columns)]
    unfinished = status_rows(report)
    if unfinished:
        parts += ["## Not finished", _markdown_rows(STATUS_COLUMNS, unfinished)]
    write_own(path, ("\n\n".join(filter(None, parts)) + "\n").encode(), ELSEWHERE)


def write_csv(path: Path, report: Report) -> None:
    """A row per row of the sections: settings that differ, then mean, spread and n of each metric.

    Without finished students the file is empty.
    """
    names = _setting_names(report)
    rows: list[dict[str, Any]] = []
    for table in report.sections:
        for place, group in enumerate(table.section.groups):
            row: dict[str, Any] = {EXPERIMENT: table.title}
            row |= {name: group.settings.get(name) for name in names}
            for column in table.columns:
                if column.name != SETTING and not column.setting:
                    row |= _csv_cells(column, place)
            rows.append(row)
    header = list(dict.fromkeys(name for row in _widest_first(rows) for name in row))
    _write_csv(path, header, ([row.get(name) for name in header] for row in rows))


def write_runs_csv(path: Path, report: Report) -> None:
    """A row per run, in any state: settings that differ, seed, metrics, folder, command."""
    names = _setting_names(report)
    metrics = metrics_of(RUNS, report.collected.runs)
    rows = []
    for run in report.collected.everything:
        settings = settings_of(run) if run.verb == DISTILL else {}
        rows.append(
            [run.verb, run.status, *(settings.get(name) for name in names), run.seed,
             *(metric.read(run) for metric in metrics), run.folder, run.command]
        )  # fmt: skip
    measured = (metric.name for metric in metrics)
    _write_csv(path, ["verb", "status", *names, "seed", *measured, "folder", "command"], rows)


def _setting_names(report: Report) -> list[str]:
    """The settings in which rows of any sections differ."""
    return differing([group.settings for group in report.grouped.groups])


def _csv_cells(column: Column, place: int) -> dict[str, Any]:
    """A cell as columns: its value; of a mean also spread and n."""
    cells: dict[str, Any] = {column.name: column.cells[place].value}
    if column.means is not None:
        mean = column.means[place]
        cells[f"{column.name} std"] = mean.sd if mean else None
        cells[f"{column.name} n"] = mean.n if mean else 0
    return cells


def _widest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """So that columns keep the order of the section that has most of them."""
    return sorted(rows, key=lambda row: -len(row))


def _markdown(columns: Sequence[Column]) -> str:
    rows = zip(*([cell.text for cell in column.cells] for column in columns), strict=True)
    numeric = [column.numeric for column in columns]
    return _markdown_rows([column.title for column in columns], rows, numeric)


def _markdown_rows(
    header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool] = ()
) -> str:
    marks = ["---:" if right else "---" for right in numeric] or ["---"] * len(header)
    lines = [header, *rows]
    shown = ["| " + " | ".join(escaped(cell) for cell in line) + " |" for line in lines]
    return "\n".join([shown[0], "| " + " | ".join(marks) + " |", *shown[1:]])


def _write_csv(path: Path, names: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    write_own(path, csv_bytes(names, ([_whole(cell) for cell in row] for row in rows)), ELSEWHERE)


def _whole(value: Any) -> Any:
    """`3.0` as `3`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
