"""The columns of a section's table, once for the screen, Markdown, CSV and the page."""

from collections.abc import Iterable
from dataclasses import dataclass

from kdrun.report.aggregate import Group
from kdrun.report.metrics_table import GAIN, REPORT, WINNER, Metric, metrics_of
from kdrun.report.pareto import fronts
from kdrun.report.published import PublishedMetric, match
from kdrun.report.sections import Section
from kdrun.report.settings import ABSENT
from kdrun.report.statistics import LEAST_PAIRS, TEST_NAME, Mean
from kdrun.report.verdict import MANY_SEEDS, UNDECIDED

Value = str | float | None
SETTING, VERDICT = "setting", "verdict"


@dataclass(frozen=True)
class Cell:
    """text: what is shown. value: what is sorted by and written to CSV; None for an empty cell."""

    text: str
    value: Value


EMPTY = Cell("", None)


def mean_cell(mean: Mean | None) -> Cell:
    """`97.21 ± 0.31`, of percentages."""
    return EMPTY if mean is None else Cell(mean.text(), mean.mean)


@dataclass(frozen=True)
class Column:
    """name: its CSV column. heading: its title on screen. about: a sentence that explains it.

    means: mean, spread and n behind each cell. setting: whether it is one setting of the runs.
    """

    name: str
    about: str
    cells: list[Cell]
    numeric: bool = True
    heading: str = ""
    means: list[Mean | None] | None = None
    setting: bool = False

    @classmethod
    def texts(cls, name: str, values: Iterable[object], about: str = "") -> "Column":
        """A column of texts; None is an empty cell."""
        cells = [EMPTY if value is None else Cell(str(value), str(value)) for value in values]
        return cls(name, about, cells, numeric=False)

    @property
    def title(self) -> str:
        """The heading, or the name where there is none."""
        return self.heading or self.name

    @property
    def uniform(self) -> bool:
        """Whether several rows all show the same."""
        return len(self.cells) > 1 and len({cell.text for cell in self.cells}) == 1

    @property
    def empty(self) -> bool:
        """Whether no cell shows anything."""
        return not any(cell.text for cell in self.cells)


def columns(section: Section, published: list[PublishedMetric]) -> list[Column]:
    """The row's label; accuracies and verdict; further metrics; settings that differ.

    Columns without a value are left out.
    """
    groups = section.groups
    runs = [run for group in groups for run in group.runs]
    by_metric = {metric: _metric(metric, groups) for metric in metrics_of(REPORT, runs)}
    first: list[Column] = []
    for metric, column in by_metric.items():
        if metric is WINNER:
            break
        first.append(column)
        if metric is GAIN:
            first.append(_seeds(groups))
    rest = [column for column in by_metric.values() if column not in first]
    ordered = [
        *first,
        _verdicts(groups),
        *rest[:1],
        _seeds_needed(groups),
        _gap_closed(groups),
        _p_values(section),
        *rest[1:],
        _fronts(groups),
        _published(groups, published),
    ]
    measured = [column for column in ordered if not column.empty]
    settings = [_setting(name, groups) for name in section.names]
    return [_labels(section), *measured, *settings]


def _labels(section: Section) -> Column:
    labels = [section.row_label(place) for place in range(len(section.groups))]
    return Column.texts(SETTING, labels, "The settings that tell the rows apart.")


def _metric(metric: Metric, groups: list[Group]) -> Column:
    means = [group.mean(metric) for group in groups]
    cells = []
    for mean, group in zip(means, groups, strict=True):
        text = metric.means(mean) if metric.spread else metric.text(mean.mean if mean else None)
        if mean and metric.spread and mean.n != len(group.runs):
            text += f" ({mean.n})"
        cells.append(Cell(text, mean.mean if mean else None))
    return Column(metric.name, metric.about, cells, heading=metric.heading, means=means)


def _seeds(groups: list[Group]) -> Column:
    cells = [Cell(str(len(group.runs)), float(len(group.runs))) for group in groups]
    return Column("n", "Number of seeds; another number in brackets for a metric.", cells)


def _verdicts(groups: list[Group]) -> Column:
    about = "Whether distillation helps, from the 95 % interval of the gain over seeds."
    return Column.texts(VERDICT, (group.verdict.outcome for group in groups), about)


def _seeds_needed(groups: list[Group]) -> Column:
    """Only where the seeds so far leave it undecided."""
    cells = []
    for group in groups:
        verdict = group.verdict
        needed = verdict.seeds_needed
        text = "" if verdict.outcome != UNDECIDED else str(needed or f">{MANY_SEEDS}")
        cells.append(Cell(text, None if needed is None else float(needed)))
    about = "Estimated number of seeds that would decide the verdict."
    return Column("seeds needed", about, cells)


def _gap_closed(groups: list[Group]) -> Column:
    values = [group.gap_closed for group in groups]
    cells = [Cell("" if value is None else f"{round(value)}", value) for value in values]
    about = "Gain as a share of the gap between baseline and teacher, of the means."
    return Column("gap closed %", about, cells)


def _p_values(section: Section) -> Column:
    cells = []
    for place, group in enumerate(section.groups):
        p = group.p
        star = " *" if place in section.significant else ""
        cells.append(Cell("" if p is None else f"{_p(p)}{star}", p))
    about = (
        f"{TEST_NAME.capitalize()}, of the gain; {LEAST_PAIRS} seeds or more. A star: below 0.05 "
        f"after Holm's correction for the {section.tested} tests in this table."
    )
    return Column("p", about, cells)


def _fronts(groups: list[Group]) -> Column:
    texts = [", ".join(names) or None for names in fronts(groups)]
    about = (
        "No row is as accurate on validation with fewer of these, or more accurate with as many."
    )
    return Column.texts("Pareto front", texts, about)


def _published(groups: list[Group], published: list[PublishedMetric]) -> Column:
    matches = [match(group.settings, published) for group in groups]
    about = "From the paper, with its schedule and settings; not measured by kdrun."
    return Column.texts(
        "published (full schedule)", (m.shown if m else None for m in matches), about
    )


def _setting(name: str, groups: list[Group]) -> Column:
    texts = [group.settings.get(name, ABSENT) for group in groups]
    numbers = [_number(text) for text in texts]
    numeric = all(_number(text) is not None for text in texts if text != ABSENT)
    values: list[Value] = list(numbers) if numeric else list(texts)
    cells = [Cell(text, value) for text, value in zip(texts, values, strict=True)]
    return Column(name, "A setting in which the runs differ.", cells, numeric, setting=True)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
