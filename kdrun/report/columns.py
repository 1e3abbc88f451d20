"""The columns of the main table, once for the screen, Markdown, CSV and HTML."""

from dataclasses import dataclass

from kdrun.report.aggregate import Group
from kdrun.report.groups import Grouped
from kdrun.report.metrics_table import BASELINE, GAIN, REPORT, TEST, Metric, metrics_of
from kdrun.report.published import Figure, match
from kdrun.report.settings import ABSENT
from kdrun.report.statistics import LEAST_PAIRS, TEST_NAME, Mean

Value = str | float | None


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by and computed with (None: nothing there)."""

    text: str
    value: Value


@dataclass(frozen=True)
class Column:
    """about: one sentence for who does not know the word. wide: left out of narrow tables."""

    name: str
    about: str
    cells: list[Cell]
    numeric: bool = True
    mean: list[Mean | None] | None = None

    @property
    def same(self) -> bool:
        """Whether all of several rows show the same."""
        return len(self.cells) > 1 and len({cell.text for cell in self.cells}) == 1


def columns(grouped: Grouped, figures: list[Figure]) -> list[Column]:
    """Settings that differ, then what was measured; a column without any value is left out."""
    found = [_setting(name, grouped.groups) for name in grouped.names]
    found += [column for column in _measured(grouped) if _has_values(column)]
    published = [match(group.settings, figures) for group in grouped.groups]
    if any(published):
        cells = [Cell(one.shown, one.shown) if one else Cell("", None) for one in published]
        about = "From the paper, at its own schedule and settings: not a measurement of kdrun."
        found.append(Column("published (full schedule)", about, cells, numeric=False))
    return found


def _measured(grouped: Grouped) -> list[Column]:
    """A column per metric; after the gain, what is said of it."""
    groups = grouped.groups
    found = []
    for metric in metrics_of(REPORT, [run for group in groups for run in group.runs]):
        found.append(_metric(metric, groups))
        if metric is GAIN:
            found += [_p_values(grouped), _gap_closed(groups)]
    return found


def _metric(metric: Metric, groups: list[Group]) -> Column:
    own = {BASELINE.name: lambda g: g.alone_test, GAIN.name: lambda g: g.gain}  # pair runs by seed
    read = own.get(metric.name, lambda g: g.mean(metric))
    means = [read(group) for group in groups]
    cells = []
    for mean, group in zip(means, groups, strict=True):
        if not metric.spread:
            text = metric.text(mean.mean if mean else None)
        else:
            text = metric.means(mean)
            if mean and (metric is TEST or mean.n != len(group.runs)):
                text += f" ({mean.n})"
        cells.append(Cell(text, mean.mean if mean else None))
    return Column(metric.name, metric.about, cells, mean=means)


def _gap_closed(groups: list[Group]) -> Column:
    values = [group.gap_closed for group in groups]
    cells = [Cell("" if value is None else f"{round(value)} %", value) for value in values]
    return Column("gap closed", "Share of the way from baseline to teacher, of the means.", cells)


def _setting(name: str, groups: list[Group]) -> Column:
    values = [group.settings.get(name, ABSENT) for group in groups]
    cells = [Cell(value, _number(value)) for value in values]
    numeric = all(isinstance(cell.value, float) or cell.text == ABSENT for cell in cells)
    if not numeric:
        cells = [Cell(value, value) for value in values]
    return Column(name, "A setting in which the runs differ.", cells, numeric)


def _p_values(grouped: Grouped) -> Column:
    cells = []
    for place, group in enumerate(grouped.groups):
        p = group.p
        star = " *" if place in grouped.significant else ""
        cells.append(Cell("" if p is None else f"{_p(p)}{star}", p))
    about = (
        f"Of the gain being chance: {TEST_NAME}, with {LEAST_PAIRS} seeds or more. A star: below "
        f"0.05 after Holm's correction for all {grouped.tested} tests in the table."
    )
    return Column("p", about, cells)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _has_values(column: Column) -> bool:
    return any(cell.value is not None for cell in column.cells)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
