"""The report as Markdown to paste, and as CSV to compute with: every number unrounded."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdrun.csv_tables import csv_bytes
from kdrun.markdown import escaped
from kdrun.ownership import write_own
from kdrun.report.columns import Column
from kdrun.report.content import Report, notes, status_rows, summary
from kdrun.report.metrics_table import RUNS, metrics_of

ELSEWHERE = "name another folder: to=DIR"
STATUS_COLUMNS = ("status", "folder", "command", "why")


def write_markdown(path: Path, report: Report) -> None:
    """The tables and what they mean."""
    parts = ["# Report", escaped(summary(report))]
    if report.columns:
        parts.append(_markdown(report.columns))
        parts.append("\n".join(f"- {escaped(note)}" for note in notes(report)))
    for listing in report.others:
        parts += [f"## {listing.title}", _markdown(listing.columns)]
    unfinished = status_rows(report)
    if unfinished:
        parts += ["## Not finished", _markdown_rows(STATUS_COLUMNS, unfinished)]
    write_own(path, ("\n\n".join(parts) + "\n").encode(), ELSEWHERE)


def write_csv(path: Path, report: Report) -> None:
    """The main table: a row per row of it, with means, standard deviations and numbers of values.

    Without finished students, the header and no row.
    """
    names: list[str] = []
    columns: list[list[Any]] = []
    for column in report.columns:
        names.append(column.name)
        columns.append([cell.value for cell in column.cells])
        if column.mean is not None:
            names += [f"{column.name} std", f"{column.name} n"]
            columns.append([mean.sd if mean else None for mean in column.mean])
            columns.append([mean.n if mean else 0 for mean in column.mean])
    _write_csv(path, names, zip(*columns, strict=True))


def write_runs_csv(path: Path, report: Report) -> None:
    """A row per run, in whatever state: settings that differ, seed, figures, folder, command."""
    names = report.grouped.names
    settings = {id(run): group.settings for group in report.grouped.groups for run in group.runs}
    metrics = metrics_of(RUNS, report.collected.runs)
    rows = []
    for run in report.collected.everything:
        own = settings.get(id(run), {})
        rows.append(
            [run.verb, run.status, *(own.get(name) for name in names), run.seed,
             *(metric.read(run) for metric in metrics), run.folder, run.command]
        )  # fmt: skip
    header = [
        "verb",
        "status",
        *names,
        "seed",
        *(metric.name for metric in metrics),
        "folder",
        "command",
    ]
    _write_csv(path, header, rows)


def _markdown(columns: Sequence[Column]) -> str:
    rows = zip(*([cell.text for cell in column.cells] for column in columns), strict=True)
    numeric = [column.numeric for column in columns]
    return _markdown_rows([column.name for column in columns], rows, numeric)


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
