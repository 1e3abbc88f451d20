"""A report on the screen: the summary, the tables, what they mean."""

from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.text import Text

from kdrun.limits import visible
from kdrun.report.columns import Column
from kdrun.report.compare import Comparison
from kdrun.report.content import Report, notes, status_rows, summary
from kdrun.ui.console import console
from kdrun.ui.tables import new_table

# More rows than this are in the files only.
LONGEST = 40
# What a narrow screen can do without.
DETAILS = ("test errors", "last val top-1 %", "best-val test top-1 %")


def show_report(report: Report) -> None:
    """Print it all."""
    _say(summary(report))
    if report.columns:
        _table("student distilled", report.columns)
        for note in notes(report):
            _say(f"  {note}")
    for listing in report.others:
        _table(listing.title, listing.columns)
    unfinished = status_rows(report)
    if unfinished:
        _say("")
        _say(f"not finished: {len(unfinished)}", style="bold")
        for status, folder, command, why in unfinished[:LONGEST]:
            _say(f"  {status}  {folder}{f'  ({command})' if status == 'not started' else ''}")
            if why:
                _say(f"      {why}")
        _rest(len(unfinished))


def show_comparison(found: Comparison, everything: bool = False) -> None:
    """Two runs beside one another; what is the same is counted, or shown too."""
    _say(f"A  {found.a.folder}")
    _say(f"B  {found.b.folder}")
    for title, lines in found.parts.items():
        results = title == "results"
        shown = [line for line in lines if everything or results or not line.same]
        same = len(lines) - len(shown)
        _say("")
        if not shown:
            _say(f"{title}: no difference in {same}" if same else f"{title}: none noted")
            continue
        header = (title, "A", "B", "B - A") if results else (title, "A", "B")
        rows = [(x.name, x.a, x.b, x.difference)[: len(header)] for x in shown]
        show_rows("", header, rows)
        if same:
            _say(f"  the same in both: {same} more (--all shows them)")


def show_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, its first column left and the others right."""
    table = new_table(*(escape(visible(name)) for name in header), title=title)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console().print(table, soft_wrap=False)


def say(text: str) -> None:
    """A plain line."""
    _say(text)


def _table(title: str, columns: Sequence[Column]) -> None:
    """Columns that are the same in every row go above the table where it would be too wide."""
    rows = len(columns[0].cells)
    shown = list(columns)
    shared = _taken_out(shown, lambda one: one.same)
    left_out = _taken_out(shown, lambda one: one.name in DETAILS)
    if shared:
        _say("")
        same = ", ".join(f"{column.name} {column.cells[0].text}" for column in shared)
        _say(f"  in every row: {same}")
    body = zip(*([cell.text for cell in column.cells[:LONGEST]] for column in shown), strict=True)
    show_rows(title, [column.name for column in shown], list(body))
    _rest(rows)
    if left_out:
        _say(f"  in the files also: {', '.join(column.name for column in left_out)}")


def _taken_out(shown: list[Column], may_go: Callable[[Column], bool]) -> list[Column]:
    """Remove columns from the right until the rest fits; returns those removed, in order."""
    gone: list[Column] = []
    for column in reversed(list(shown)):
        if _width(shown) > console().width and len(shown) > 1 and may_go(column):
            shown.remove(column)
            gone.insert(0, column)
    return gone


def _width(columns: Sequence[Column]) -> int:
    cells = (
        max([len(cell.text) for cell in column.cells] + [max(map(len, column.name.split()))])
        for column in columns
    )
    return sum(cells) + 3 * len(columns) + 1


def _rest(count: int) -> None:
    if count > LONGEST:
        _say(f"  {count - LONGEST} more are in the files")


def _say(text: str, style: str | None = None) -> None:
    console().print(visible(text), style=style, markup=False)
