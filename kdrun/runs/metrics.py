"""`metrics.jsonl` and `metrics.csv`: one line per epoch, always the whole history."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from kdrun.files import write_atomically


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write both files anew, so that a continued run never leaves lines of a lost epoch."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / "metrics.csv", table.getvalue().encode())
