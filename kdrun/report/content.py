"""Everything a report says, ready for the screen, for files and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.report.columns import Cell, Column, columns
from kdrun.report.groups import DISTILL, Grouped, group
from kdrun.report.metrics_table import LISTING, metrics_of
from kdrun.report.published import Figure, match
from kdrun.report.records import Collected, Run
from kdrun.report.settings import label
from kdrun.report.statistics import TEST_NAME
from kdrun.runs.reading import DAMAGED, UNREADABLE
from kdrun.ui import format


@dataclass(frozen=True)
class Report:
    """columns: of the main table, whose rows are the groups; others: tables of other verbs."""

    collected: Collected
    grouped: Grouped
    columns: list[Column]
    others: list["Listing"]
    figures: list[Figure]

    @property
    def unfinished(self) -> list[Run]:
        """Runs without figures: never dropped, always listed."""
        return [run for run in self.collected.everything if not run.finished]

    @property
    def sources(self) -> list[str]:
        """Where the published figures of the table are from."""
        matches = (match(one.settings, self.figures) for one in self.grouped.groups)
        found = [f"{f.source}, {f.table}" for one in matches if one for f in one.figures]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Listing:
    """A plain table: a row per run of a verb."""

    title: str
    columns: list[Column]


def make_report(collected: Collected, figures: list[Figure]) -> Report:
    """Read what the runs left and put it together."""
    grouped = group(collected.runs)
    others = [_teachers(collected.runs), _evaluations(collected.runs)]
    return Report(
        collected,
        grouped,
        columns(grouped, figures) if grouped.groups else [],
        [listing for listing in others if listing.columns[0].cells],
        figures,
    )


def summary(report: Report) -> str:
    """What came out, in sentences."""
    runs, groups = report.collected.everything, report.grouped.groups
    sentences = [f"{_count(runs, 'run')}, {len(runs) - len(report.unfinished)} of them finished."]
    damaged = [run for run in runs if run.status == DAMAGED]
    if damaged:
        are = "is" if len(damaged) == 1 else "are"
        sentences.append(f"{_count(damaged, 'damaged run')} {are} left out and named below.")
    if groups:
        seeds = max(len(one.runs) for one in groups)
        settings = f" by {', '.join(report.grouped.names)}" if report.grouped.names else ""
        sentences.append(
            f"{_count(groups, 'row')}{settings}, up to {_count(range(seeds), 'seed')} each."
        )
        sentences += _best(report)
    return " ".join(sentences)


def notes(report: Report) -> list[str]:
    """What a reader must know to read the table."""
    grouped = report.grouped
    found = []
    if grouped.groups:
        found.append("Sorted by validation accuracy (best epoch); the test split chooses nothing. "
                     "± is the standard deviation over seeds.")  # fmt: skip
    if grouped.tested:
        found.append(
            f"p: {TEST_NAME}, against the student alone; * holds at 0.05 after Holm's correction "
            f"for {_count(range(grouped.tested), 'test')}."
        )
    elif grouped.groups:
        found.append("No test of significance: that takes three seeds or more, with alone=true.")
    unchecked = [run for run in report.collected.runs if run.finished and not run.checked]
    if unchecked:
        found.append(
            f"{_count(unchecked, 'finished run')} without checksums (SHA256SUMS): taken as "
            f"{'it is' if len(unchecked) == 1 else 'they are'}."
        )
    repeats = sum(one.repeats for one in grouped.groups)
    if repeats:
        found.append(
            f"{_count(range(repeats), 'run')} with a configuration and seed that is there already: "
            "the newest of them counts, so that n is the number of seeds."
        )
    if grouped.baselines:
        found.append(
            f"{_count(grouped.baselines, 'run')} of a student alone, made for other runs, "
            "in the column 'alone'."
        )
    found += [f"published: {source}." for source in report.sources]
    return found


def group_label(report: Report, place: int) -> str:
    """How a row is called outside the table."""
    settings = report.grouped.groups[place].settings
    return label(settings, report.grouped.names) or label(settings, ("student", "loss", "T"))


def status_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """(status, folder, command, error) of each run that is not finished."""
    return [(run.status, str(run.folder), run.command, _why(run)) for run in report.unfinished]


def _best(report: Report) -> list[str]:
    top = report.grouped.groups[0]
    test = top.test
    if test is None:
        return []
    shown = f"{format.percent(test.mean)}{_plus_minus(test.sd)} %"
    what = group_label(report, 0)
    chosen = f"Best on validation: {what}" if len(report.grouped.groups) > 1 else what
    text = f"{chosen}, {shown} on the test split (n={test.n})"
    alone, teacher = top.alone_test, top.teacher
    if alone and top.gain:
        text += f"; the same student alone {format.percent(alone.mean)}{_plus_minus(alone.sd)} %"
    if teacher:
        text += f", its teacher {format.percent(teacher.mean)} %"
    found = [f"{text}."]
    if top.gain:
        gap = top.gap_closed
        closed = f" ({gap:.0f} % of the gap)" if gap is not None else ""
        p = f", p = {top.p:.3f}" if top.p is not None and top.p >= 0.001 else ""
        p = ", p < 0.001" if top.p is not None and top.p < 0.001 else p
        found.append(f"Distilling gained {format.points(top.gain.mean)} points{closed}{p}.")
    return found


def _plus_minus(sd: float | None) -> str:
    return "" if sd is None else f" ± {format.percent(sd)}"


def _count(things: Sequence[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _why(run: Run) -> str:
    if run.status == UNREADABLE:
        return "result.json cannot be read"
    if run.status == DAMAGED:
        return f"left out: {run.error}"
    if run.status == "running":
        return run.error or "still going on, or killed: kdrun resume goes on with it"
    return run.error


def _teachers(runs: Sequence[Run]) -> Listing:
    chosen = [run for run in runs if run.finished and run.verb == "train-teacher"]
    return Listing(
        "Teachers",
        [
            _texts("teacher", [run.result.trained.name for run in chosen]),
            _texts("dataset", [run.result.dataset.name for run in chosen]),
            _texts("seed", [run.seed for run in chosen]),
            *_metrics(chosen),
            _texts("folder", [run.folder for run in chosen]),
        ],
    )


def _evaluations(runs: Sequence[Run]) -> Listing:
    chosen = [run for run in runs if run.finished and run.verb not in (DISTILL, "train-teacher")]
    return Listing(
        "Other runs",
        [
            _texts("command", [run.verb for run in chosen]),
            _texts("network", [run.result.student.name for run in chosen]),
            _texts("dataset", [run.result.dataset.name for run in chosen]),
            *_metrics(chosen),
            _texts("of", [run.result.run for run in chosen]),
            _texts("folder", [run.folder for run in chosen]),
        ],
    )


def _metrics(runs: Sequence[Run]) -> list[Column]:
    found = []
    for metric in metrics_of(LISTING, runs):
        values = [metric.read(run) for run in runs]
        cells = [Cell(metric.text(value), value) for value in values]
        found.append(Column(metric.name, metric.about, cells))
    return found


def _texts(name: str, values: Sequence[Any]) -> Column:
    cells = [Cell("", None) if v is None else Cell(str(v), str(v)) for v in values]
    return Column(name, "", cells, numeric=False)
