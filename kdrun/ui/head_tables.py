"""Errors of students that can answer by several heads."""

from typing import Any

from rich.table import Table

from kdrun.ui import format
from kdrun.ui.tables import new_table

READOUT_WORDS = {
    "class": "class head",
    "distillation": "distillation heads",
    "both": "all heads together",
}


def error_table(result: dict[str, Any]) -> Table:
    """Errors of all networks, the student's by each of its heads: from a `result.json`."""
    table = new_table("test split", "top-1 error %", "top-5 error %", "params")
    for teacher in result.get("teachers", []):
        _row(table, f"teacher  {teacher['name']}", teacher["test"], teacher["params"])
    student, alone = result["student"], result.get("alone")
    if alone:
        params = alone.get("params", student["params"])
        _row(table, f"student alone  {student['name']}", alone["test"], params)
    for readout, found in student["heads"].items():
        mark = " (its answer)" if readout == student["inference"] else ""
        label = f"student  {student['name']}, {READOUT_WORDS[readout]}{mark}"
        _row(table, label, found, found["params"])
    return table


def _row(table: Table, name: str, test: dict[str, Any], params: int) -> None:
    errors = (format.percent(100.0 - test[key]) for key in ("top1", "top5"))
    table.add_row(name, *errors, format.count(params))
