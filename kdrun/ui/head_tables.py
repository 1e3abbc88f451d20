"""Errors of a student with distillation tokens, by each of its heads."""

from rich.table import Table

from kdrun.runs.result import Metrics, RunResult
from kdrun.ui import format
from kdrun.ui.tables import new_table

READOUTS = {
    "class": "class head",
    "distillation": "distillation heads",
    "both": "all heads together",
}


def error_table(result: RunResult) -> Table:
    """Top-1 and top-5 errors of teachers, baseline and student, the student's by each head."""
    table = new_table("test split", "top-1 error %", "top-5 error %", "params")
    for teacher in result.teachers:
        _add_row(table, f"teacher  {teacher.name}", teacher.test, teacher.params)
    student, baseline = result.student, result.alone
    if baseline:
        params = student.params if baseline.params is None else baseline.params
        _add_row(table, f"student alone  {student.name}", baseline.test, params)
    for readout, metrics in student.heads.items():
        used = " (used for inference)" if readout == student.inference else ""
        label = f"student  {student.name}, {READOUTS.get(readout, readout)}{used}"
        _add_row(table, label, metrics, metrics.params)
    return table


def _add_row(table: Table, name: str, metrics: Metrics, params: int | None) -> None:
    errors = (
        "" if top is None else format.percent(100.0 - top) for top in (metrics.top1, metrics.top5)
    )
    table.add_row(name, *errors, "" if params is None else format.count(params))
