"""`metrics.jsonl` and `metrics.csv`: one line per epoch, always the whole history."""

import json
from pathlib import Path
from typing import Any

from kdrun.csv_tables import csv_of_records
from kdrun.files import write_atomically


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Rewrite both files, so that a continued run never leaves lines of a lost epoch."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    write_atomically(folder / "metrics.csv", csv_of_records(rows))
