"""The content of a report, for the screen, for files and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.report.columns import Cell, Column, columns
from kdrun.report.exported import exported_columns
from kdrun.report.groups import DISTILL, Grouped, group
from kdrun.report.metrics_table import LISTING, metrics_of
from kdrun.report.parts import parts_columns
from kdrun.report.published import PublishedMetric, match
from kdrun.report.records import Collected, Run
from kdrun.report.sections import Section, sections
from kdrun.report.statistics import TEST_NAME
from kdrun.runs.reading import DAMAGED, UNREADABLE
from kdrun.runs.result import RESUMABLE
from kdrun.ui import format

SORTED = (
    "Rows are sorted by validation top-1 of the best epoch, averaged over seeds; test accuracies "
    "are those of the last epoch and choose nothing. ± is the standard deviation over n seeds."
)


@dataclass(frozen=True)
class SectionTable:
    """A section with its table. columns: a cell per group. parts: networks that belong to rows."""

    section: Section
    columns: list[Column]
    parts: list[Column]

    @property
    def title(self) -> str:
        """`digits · sweep over T, alpha · cnn_large → cnn_tiny · kd`."""
        return self.section.title


@dataclass(frozen=True)
class Listing:
    """A plain table: a row per run of a verb."""

    title: str
    columns: list[Column]


@dataclass(frozen=True)
class Report:
    """sections: tables of distilled students. others: tables of runs of other verbs."""

    collected: Collected
    grouped: Grouped
    sections: list[SectionTable]
    others: list[Listing]
    published: list[PublishedMetric]

    @property
    def unfinished(self) -> list[Run]:
        """Runs without results, and jobs without a run."""
        return [run for run in self.collected.everything if not run.finished]

    @property
    def sources(self) -> list[str]:
        """The sources of the published values."""
        matches = (match(group.settings, self.published) for group in self.grouped.groups)
        metrics = [metric for row in matches if row for metric in row.metrics]
        return list(dict.fromkeys(f"{metric.source}, {metric.table}" for metric in metrics))


def make_report(collected: Collected, published: list[PublishedMetric]) -> Report:
    """Group the runs, split them into sections and make their tables."""
    grouped = group(collected.runs)
    others = [_teachers(collected.runs), _evaluations(collected.runs)]
    others.append(Listing("Exported files", exported_columns(collected.runs)))
    return Report(
        collected,
        grouped,
        [
            SectionTable(section, columns(section, published), parts_columns(section))
            for section in sections(grouped, collected.sweeps)
        ],
        [listing for listing in others if listing.columns[0].cells],
        published,
    )


def summary(report: Report) -> str:
    """Counts of runs, sections and data sets."""
    runs = report.collected.everything
    sentences = [f"{_count(runs, 'run')}, {len(runs) - len(report.unfinished)} finished."]
    damaged = [run for run in runs if run.status == DAMAGED]
    if damaged:
        are = "is" if len(damaged) == 1 else "are"
        sentences.append(f"{_count(damaged, 'damaged run')} {are} left out and listed below.")
    if len(report.sections) > 1:
        datasets = {table.section.experiment.dataset for table in report.sections}
        sentences.append(
            f"{_count(report.sections, 'experiment')} on {_count(datasets, 'data set')}, a section "
            "each."
        )
    if report.grouped.served:
        sentences.append(
            f"{_count(report.grouped.served, 'run')} served other runs (baselines, assistants, "
            f"generations) and {'counts' if len(report.grouped.served) == 1 else 'count'} as part "
            "of them."
        )
    return " ".join(sentences)


def best_lines(section: Section) -> list[str]:
    """The row that wins on validation, its test accuracies, and the verdict on it."""
    top = section.groups[0]
    if top.test is None:
        return []
    label = section.row_label(0)
    text = f"best on validation: {label}, " if len(section.groups) > 1 else f"{label}: "
    text += f"test {top.test.text()} %"
    if top.baseline and top.gain:
        text += f", baseline {top.baseline.text()} %, gain {format.points(top.gain.mean)} points"
    if top.teacher:
        text += f", teacher {format.percent(top.teacher.mean)} %"
    verdict = top.verdict.text()
    return [f"{text} (n={top.test.n})", *([verdict] if verdict else [])]


def notes(report: Report) -> list[str]:
    """What a reader must know to read the tables."""
    groups = report.grouped.groups
    lines = [SORTED] if groups else []
    tested = sum(table.section.tested for table in report.sections)
    if tested:
        lines.append(f"p: {TEST_NAME}; * below 0.05 after Holm's correction for its table.")
    unchecked = [run for run in report.collected.runs if run.finished and not run.checked]
    if unchecked:
        have = "has" if len(unchecked) == 1 else "have"
        lines.append(
            f"{_count(unchecked, 'finished run')} {have} no checksums (SHA256SUMS) and cannot be "
            "checked for damage."
        )
    repeats = sum(group.repeats for group in groups)
    if repeats:
        lines.append(
            f"{_count(range(repeats), 'run')} {'repeats' if repeats == 1 else 'repeat'} a "
            "configuration and seed; only the newest counts, so that n is the number of seeds."
        )
    lines += [f"published: {source}." for source in report.sources]
    return lines


def status_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """(status, folder, command, error) of each run that is not finished."""
    return [(run.status, str(run.folder), run.command, _why(run)) for run in report.unfinished]


def _count(things: Any, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _why(run: Run) -> str:
    if run.status == UNREADABLE:
        return "result.json cannot be read"
    if run.status == DAMAGED:
        return f"left out: {run.error}"
    if run.status == "running":
        remedy = "kdrun resume continues it" if run.verb in RESUMABLE else "type its command again"
        return run.error or f"still running, or killed: {remedy}"
    return run.error


def _teachers(runs: Sequence[Run]) -> Listing:
    chosen = [run for run in runs if run.finished and run.verb == "train-teacher"]
    return Listing(
        "Teachers",
        [
            Column.texts("teacher", [run.result.trained.name for run in chosen]),
            Column.texts("dataset", [run.result.dataset.name for run in chosen]),
            Column.texts("seed", [run.seed for run in chosen]),
            *_metrics(chosen),
            Column.texts("folder", [run.folder for run in chosen]),
        ],
    )


def _evaluations(runs: Sequence[Run]) -> Listing:
    chosen = [run for run in runs if run.finished and run.verb not in (DISTILL, "train-teacher")]
    return Listing(
        "Other runs",
        [
            Column.texts("command", [run.verb for run in chosen]),
            Column.texts("network", [run.result.student.name for run in chosen]),
            Column.texts("dataset", [run.result.dataset.name for run in chosen]),
            *_metrics(chosen),
            Column.texts("of", [run.result.run for run in chosen]),
            Column.texts("folder", [run.folder for run in chosen]),
        ],
    )


def _metrics(runs: Sequence[Run]) -> list[Column]:
    metric_columns = []
    for metric in metrics_of(LISTING, runs):
        values = [metric.read(run) for run in runs]
        cells = [Cell(metric.text(value), value) for value in values]
        metric_columns.append(Column(metric.name, metric.about, cells))
    return metric_columns
