"""Networks that belong to a row of a report: its teachers, assistants, generations, peers, ..."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kdrun.report.aggregate import Group
from kdrun.report.columns import EMPTY, Cell, Column, mean_cell
from kdrun.report.sections import Section
from kdrun.report.statistics import mean_of
from kdrun.runs.result import Measured, RunResult
from kdrun.ui import format


@dataclass(frozen=True)
class Part:
    """A network that was measured with a row's students. top1: test split, one value per seed."""

    role: str
    network: str
    top1: list[float | None]
    params: int | None


def parts_columns(section: Section) -> list[Column]:
    """A row per network that belongs to a row of the section; no columns where there are none."""
    rows = [
        (section.row_label(place), part)
        for place, group in enumerate(section.groups)
        for part in parts_of(group)
    ]
    if not rows:
        return []
    means = [mean_of(part.top1) for _, part in rows]
    # the seeds of a row may share a network, whose values are equal then
    shown = [mean_cell(mean and replace(mean, sd=mean.sd or None)) for mean in means]
    sizes = [
        EMPTY if part.params is None else Cell(format.count(part.params), part.params)
        for _, part in rows
    ]
    return [
        Column.texts("row", (row for row, _ in rows), "The row of the table above."),
        Column.texts("part", (part.role for _, part in rows), "What the network was in the run."),
        Column.texts("network", (part.network for _, part in rows)),
        Column("test top-1 %", "Test split, mean over seeds.", shown, means=means),
        Column("params", "Trainable parameters.", sizes),
    ]


def parts_of(group: Group) -> list[Part]:
    """The networks that belong to the runs of a group, averaged over seeds."""
    parts: dict[tuple[str, str], Part] = {}
    for run in group.runs:
        for role, network, measured, params in _measured(run.result):
            part = parts.setdefault((role, network), Part(role, network, [], params))
            part.top1.append(measured.test.top1)
    return list(parts.values())


def _measured(result: RunResult) -> Iterable[tuple[str, str, Measured, int | None]]:
    """(role, network, metrics, parameters) of each network of a run besides its student."""
    if len(result.teachers) > 1:
        for number, teacher in enumerate(result.teachers, 1):
            yield f"teacher {number}", teacher.name or "", teacher, teacher.params
    for earlier in result.generations[:-1]:
        yield earlier.role or "generation", earlier.name or "", earlier, earlier.params
    student = result.student.name or ""
    if result.ensemble_of_generations:
        yield "ensemble of generations", student, result.ensemble_of_generations, None
    for part in (*result.peers, *result.branches, *result.exits, *result.ensemble):
        yield part.name or part.role or "network", part.network or student, part, part.params
