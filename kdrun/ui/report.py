"""A report on the screen: a section per experiment, each table fitted to the width."""

import re
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdrun.limits import visible
from kdrun.report import layout
from kdrun.report.columns import SETTING, VERDICT, Column
from kdrun.report.compare import Comparison
from kdrun.report.content import Report, SectionTable, best_lines, notes, status_rows, summary
from kdrun.report.metrics_table import BASELINE, GAIN, TEACHER, TEST
from kdrun.report.records import OVER_BUDGET
from kdrun.ui.console import console
from kdrun.ui.tables import new_table

# Longer tables are cut on the screen; the files have all rows.
LONGEST = 40
# Columns that stay at any width.
ESSENTIAL = {SETTING, VERDICT, "n", *(metric.name for metric in (BASELINE, TEST, GAIN, TEACHER))}
# Those of them that go, in this order, where even their shortest form does not fit.
LAST_RESORT = (TEACHER.name, VERDICT, BASELINE.name)
GAP = 2  # spaces between columns
# The network's own number in `over budget: 377,768 bytes (limit 100,000)`.
OWN_SIZE = re.compile(r"(?<=: )[\d.,]+ |(?<=\), )[\d.,]+ ")


def show_report(report: Report) -> None:
    """Print the summary, the sections, other tables and unfinished runs."""
    _say(summary(report))
    for table in report.sections:
        _show_section(table)
    if report.sections:
        _say("")
        for note in notes(report):
            _say(note)
    for listing in report.others:
        _heading(listing.title)
        _show_table(listing.columns)
    unfinished = status_rows(report)
    if unfinished:
        _heading(f"Not finished: {len(unfinished)}")
        for reason, count in over_budget_reasons(unfinished).items():
            _say(f"  {count} {reason}")
        others = [row for row in unfinished if row[0] != OVER_BUDGET]
        for status, folder, command, why in others[:LONGEST]:
            _say(f"  {status}  {folder}{f'  ({command})' if status == 'not started' else ''}")
            if why:
                _say(f"      {why}")
        _cut(len(others))


def over_budget_reasons(rows: Sequence[tuple[str, str, str, str]]) -> dict[str, int]:
    """How many of the status rows each limit left out: `over budget: bytes (limit 100,000)`.

    A search refuses hundreds; the files list them with the size of each.
    """
    counts: dict[str, int] = {}
    for status, _, _, why in rows:
        if status == OVER_BUDGET:
            reason = OWN_SIZE.sub("", why)
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def show_comparison(comparison: Comparison, everything: bool = False) -> None:
    """Two runs side by side; equal lines are counted, or shown too."""
    _say(f"A  {comparison.a.folder}")
    _say(f"B  {comparison.b.folder}")
    for title, lines in comparison.parts.items():
        results = title == "results"
        shown = [line for line in lines if everything or results or not line.same]
        same = len(lines) - len(shown)
        _say("")
        if not shown:
            _say(f"{title}: no difference in {same}" if same else f"{title}: none recorded")
            continue
        header = (title, "A", "B", "B - A") if results else (title, "A", "B")
        rows = [(x.name, x.a, x.b, x.difference)[: len(header)] for x in shown]
        _show_rows(header, rows)
        if same:
            _say(f"  {same} more are equal in both (--all shows them)")


def _show_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, its first column left and the others right."""
    table = new_table(*(escape(visible(name)) for name in header))
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console().print(table, soft_wrap=False)


def _show_section(table: SectionTable) -> None:
    _heading(table.title)
    for line in best_lines(table.section):
        _say(f"  {line}")
    _show_table([column for column in table.columns if not column.setting])
    hidden = [name for name in table.section.names if name not in table.section.labels]
    if hidden:
        _say(f"  also different: {', '.join(hidden)}")
    if table.parts:
        _say("  networks of these rows:")
        _show_table(table.parts)


def _show_table(columns: Sequence[Column]) -> None:
    """Columns that do not fit go: first those that are the same in every row, into a line above the
    table; then those on the right, into a line below it."""
    shown = list(columns)
    uniform = [c for c in shown if c.uniform and c.name not in ESSENTIAL] if _wide(shown) else []
    shown = [column for column in shown if column not in uniform]
    dropped: list[Column] = []
    for column in reversed(list(shown)):
        if _wide(shown) and len(shown) > 1 and column.name not in ESSENTIAL:
            shown.remove(column)
            dropped.insert(0, column)
    for name in LAST_RESORT:
        if _wide(shown, tight=True):
            dropped += [column for column in shown if column.name == name]
            shown = [column for column in shown if column.name != name]
    if uniform:
        same = ", ".join(f"{column.title} {column.cells[0].text}" for column in uniform)
        _say(f"  in every row: {same}")
    console().print(_table(shown), soft_wrap=False)
    _cut(len(columns[0].cells))
    if dropped:
        _say(f"  in the files: {', '.join(column.title for column in dropped)}")


def _table(columns: Sequence[Column]) -> Table:
    """A table whose cells and headings wrap between words only."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    widths = _widths(columns, tight=_wide(columns))
    for column, width in zip(columns, widths, strict=True):
        heading = Text("\n".join(layout.wrapped(column.title, width)), style="bold")
        table.add_column(
            heading, justify="right" if column.numeric else "left", no_wrap=True, width=width
        )
    for row in zip(*(column.cells[:LONGEST] for column in columns), strict=True):
        lines = (
            layout.wrapped(visible(cell.text), width)
            for cell, width in zip(row, widths, strict=True)
        )
        table.add_row(*(Text("\n".join(cell)) for cell in lines))
    return table


def _widths(columns: Sequence[Column], tight: bool = False) -> list[int]:
    """A width per column: texts shrink to their longest word where the table is too wide.

    tight: to the longest part of a word, broken at a separator.
    """
    least, full = [], []
    longest = layout.longest_piece if tight else layout.longest_word
    for column in columns:
        cells = _cells(column)
        heading = layout.heading_width(column.title)
        full.append(max(heading, *map(len, cells)))
        least.append(full[-1] if column.numeric else max(heading, longest(cells)))
    spare = console().width - sum(least) - GAP * len(columns)
    widths = []
    for low, high in zip(least, full, strict=True):
        more = max(0, min(high - low, spare))
        spare -= more
        widths.append(low + more)
    return widths


def _wide(columns: Sequence[Column], tight: bool = False) -> bool:
    """Whether the table is wider than the screen, with its texts wrapped."""
    return sum(_widths(columns, tight)) + GAP * len(columns) > console().width


def _cells(column: Column) -> list[str]:
    return [visible(cell.text) for cell in column.cells[:LONGEST]]


def _cut(count: int) -> None:
    if count > LONGEST:
        _say(f"  {count - LONGEST} more rows are in the files")


def _heading(text: str) -> None:
    _say("")
    _say(text, style="bold")


def _say(text: str, style: str | None = None) -> None:
    lines = layout.paragraph(visible(text), console().width)
    console().print("\n".join(lines), style=style, markup=False)
