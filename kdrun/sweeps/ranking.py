"""A sweep's results: a row per finished job, and settings ranked with their seeds averaged.

Settings are ranked by the validation accuracy of the best epoch, averaged over seeds. The test
columns show the last epoch and choose nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdrun.csv_tables import csv_of_records
from kdrun.errors import EXIT_INTERRUPTED
from kdrun.ownership import require_own, write_own
from kdrun.report.aggregate import Group, group_by_settings, ranked
from kdrun.report.metrics_table import RANKING, WINNER, Metric, metrics_of
from kdrun.report.records import Run, read_run
from kdrun.report.settings import Settings, label
from kdrun.runs.reading import DAMAGED
from kdrun.runs.sweeps import SweepFolder

FILES = ("summary.csv", "summary.md", "ranking.csv", "ranking.md")
COUNT, OVER_BUDGET = "n", "over budget"
# What tells one job from another besides the settings that were chosen.
SEED_KEYS = ("seed", "teacher.seed")


@dataclass(frozen=True)
class Row:
    """One finished job. chosen: swept name → value as typed."""

    number: int
    chosen: dict[str, str]
    run: Run


@dataclass(frozen=True)
class Unfinished:
    """A job without a result: its state, the last line of its error, its log.

    told: whether its error was shown when it ended.
    """

    number: int
    words: list[str]
    state: str
    error: str
    log: Path | None
    told: bool = False


@dataclass(frozen=True)
class OverBudget:
    """A job whose student exceeds the sweep's budget and was not trained. excess: by how much."""

    number: int
    chosen: dict[str, str]
    excess: str


@dataclass(frozen=True)
class Jobs:
    """All jobs of a sweep; rows: the finished ones, best first."""

    rows: list[Row]
    unfinished: list[Unfinished]
    over_budget: list[OverBudget]


@dataclass(frozen=True)
class Ranking:
    """Settings, best first, and the metrics that any of their runs has.

    over_budget: settings → by how much they exceed the budget; they come last and have no runs.
    """

    groups: list[Group]
    metrics: list[Metric]
    over_budget: list[tuple[Settings, str]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The settings that were chosen, n, then the metrics."""
        listed = [group.settings for group in self.groups] + [s for s, _ in self.over_budget]
        chosen = dict.fromkeys(name for settings in listed for name in settings)
        last = [OVER_BUDGET] * bool(self.over_budget)
        return [*chosen, COUNT, *(metric.name for metric in self.metrics), *last]

    def rows(self) -> list[list[str]]:
        """The lines of the table."""
        values = [{**s, COUNT: "0", OVER_BUDGET: excess} for s, excess in self.over_budget]
        skipped = [[value.get(name, "") for name in self.columns] for value in values]
        return [*(self.cells(group) for group in self.groups), *skipped]

    def records(self) -> list[dict[str, Any]]:
        """The lines of `ranking.csv`."""
        skipped = [{**s, COUNT: 0, OVER_BUDGET: excess} for s, excess in self.over_budget]
        return [*(self.numbers(group) for group in self.groups), *skipped]

    def cells(self, group: Group) -> list[str]:
        """A line of the table: `93.10 ± 0.40` for several seeds."""
        values = {**group.settings, COUNT: str(len(group.runs))}
        for metric in self.metrics:
            mean = group.mean(metric)
            if mean is not None and mean.sd == 0 and not metric.spread:
                mean = replace(mean, sd=None)
            values[metric.name] = metric.means(mean)
        return [values.get(name, "") for name in self.columns]

    def numbers(self, group: Group) -> dict[str, Any]:
        """A line of `ranking.csv`: mean and standard deviation in separate columns."""
        line: dict[str, Any] = {**group.settings, COUNT: len(group.runs)}
        for metric in self.metrics:
            mean = group.mean(metric)
            line[f"{metric.name} mean"] = mean.mean if mean else None
            line[f"{metric.name} std"] = mean.sd if mean else None
        return line


def setting(group: Group) -> str:
    """The setting as it is typed."""
    return label(group.settings, group.settings)


def read_jobs(folder: SweepFolder) -> Jobs:
    """The jobs of a sweep as they stand now."""
    rows, unfinished, over_budget = [], [], []
    for number, words in enumerate(folder.differences()):
        note = folder.note(number)
        if fault := folder.note_fault(number):
            unfinished.append(Unfinished(number, words, "damaged", fault, None))
            continue
        if note is None:
            unfinished.append(Unfinished(number, words, "not started", "it was not its turn", None))
            continue
        if excess := note.get("over_budget"):
            over_budget.append(OverBudget(number, _chosen(words), str(excess)))
            continue
        run = read_run(Path(note["run"])) if note.get("run") else None
        if run is not None and run.finished:
            rows.append(Row(number, _chosen(words), run))
            continue
        log = run.folder / "run.log" if run is not None else None
        if run is not None and run.status == DAMAGED:
            unfinished.append(Unfinished(number, words, "damaged", run.result.error or "", log))
            continue
        states = {None: "did not end", EXIT_INTERRUPTED: "interrupted"}
        state = states.get(note.get("code"), "failed")
        error = note.get("error") or (run and run.result.error) or "its process ended"
        told = bool(note.get("error"))
        unfinished.append(Unfinished(number, words, state, str(error), log, told))
    rows.sort(key=lambda row: (-(WINNER.read(row.run) or 0.0), row.number))
    return Jobs(rows, unfinished, over_budget)


def rank(rows: Iterable[Row], over_budget: Iterable[OverBudget] = ()) -> Ranking:
    """The settings of finished jobs, seeds averaged, best first; ties keep their order."""
    ordered = sorted(rows, key=lambda row: row.number)
    groups = ranked(group_by_settings((_without_seeds(row.chosen), row.run) for row in ordered))
    skipped = {tuple(_without_seeds(job.chosen).items()): job.excess for job in over_budget}
    return Ranking(groups, _measured(ordered), [(dict(s), text) for s, text in skipped.items()])


def write_files(folder: Path, rows: Sequence[Row], ranking: Ranking) -> None:
    """`summary.csv` and `.md` with a line per job, `ranking.csv` and `.md` with one per setting.

    Raises ConfigError, and writes none, where one of them is there that kdrun did not write.
    """
    require_own(folder, FILES, "delete it")
    metrics = _measured(rows)
    lines = [
        {"job": row.number, **row.chosen, **{m.name: m.read(row.run) for m in metrics},
         "run": str(row.run.folder)}
        for row in rows
    ]  # fmt: skip
    write_own(folder / "summary.csv", csv_of_records(lines), "delete it")
    shown = {metric.name: metric.text for metric in metrics}
    names = list(dict.fromkeys(name for line in lines for name in line))
    cells = [[shown.get(name, _text)(line.get(name)) for name in names] for line in lines]
    _write_markdown(folder / "summary.md", names, cells)
    write_own(folder / "ranking.csv", csv_of_records(ranking.records()), "delete it")
    _write_markdown(folder / "ranking.md", ranking.columns, ranking.rows())


def _measured(rows: Sequence[Row]) -> list[Metric]:
    """The metrics that at least one job has."""
    runs = [row.run for row in rows]
    return [
        metric
        for metric in metrics_of(RANKING, runs)
        if any(metric.read(run) is not None for run in runs)
    ]


def _without_seeds(chosen: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in chosen.items() if name not in SEED_KEYS}


def _chosen(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words) if value}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _write_markdown(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    write_own(path, ("\n".join(lines) + "\n").encode(), "delete it")
