"""Write CSV files that are safe in spreadsheets, and read them back.

Spreadsheets evaluate cells that start with `=`, `+`, `-` or `@` as formulas. Such texts get a
leading apostrophe, which marks a cell as text; numbers stay numbers. `read_csv` removes it. The
rule is reversible: a text that already looks escaped gets another apostrophe.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Formula signs, their full-width forms, and preceding blanks that importers may drop.
FORMULA = re.compile(r"'*[\s\ufeff\u200b\u00a0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def csv_bytes(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A table with a header row as UTF-8; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(_Lines(text), lineterminator="\r\n")  # quotes both
    writer.writerow([neutral(name) for name in names])
    writer.writerows([neutral(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def csv_of_records(records: Sequence[dict[str, Any]]) -> bytes:
    """As `csv_bytes` for dictionaries; columns are their keys in order of appearance."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return csv_bytes(names, ([record.get(name) for name in names] for record in records))


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file written by kdrun, unescaped."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [[original(cell) for cell in row] for row in csv.reader(file)]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] if rows else []


def neutral(value: Any) -> Any:
    """Escape a cell that a spreadsheet would evaluate as a formula."""
    value = str(value) if isinstance(value, Path) else value
    if not isinstance(value, str) or NUMBER.fullmatch(value) or not FORMULA.match(value):
        return value
    return f"'{value}"


def original(cell: str) -> str:
    """Inverse of `neutral`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell


class _Lines:
    """A text stream that ends rows with a newline only."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, row: str) -> int:
        return self._text.write(row.removesuffix("\r\n") + "\n")
