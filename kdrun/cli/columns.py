"""Text in aligned columns."""

import shutil
import sys
import textwrap
from collections.abc import Sequence


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned text; nothing is cut or wrapped."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def wrapped_columns(rows: Sequence[tuple[str, str]]) -> str:
    """(name, description) rows; descriptions wrap within the terminal. Piped output stays whole."""
    if not rows or not sys.stdout.isatty():
        return columns(rows)
    width = shutil.get_terminal_size().columns - 1
    indent = min(max(len(name) for name, _ in rows), width // 2) + 2
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(width - indent, 20)) or [""]
        if len(name) > indent - 2:
            lines.append(name)
            name = ""
        lines.append(f"{name.ljust(indent)}{wrapped[0]}".rstrip())
        lines += [" " * indent + line for line in wrapped[1:]]
    return "\n".join(lines)
