"""A sweep's figures: a row per finished job, and settings ranked with their seeds taken together.

Settings are ranked by the validation accuracy of their best epoch, averaged over the seeds. The
test figures beside it are of the last epoch, and rank nothing.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.csv_tables import csv_of_records
from kdrun.ownership import require_own, write_own
from kdrun.runs.reading import read_run
from kdrun.runs.result import COMPLETED
from kdrun.runs.sweeps import SweepFolder
from kdrun.ui import format

FILES = ("summary.csv", "summary.md", "ranking.csv", "ranking.md")
VALIDATION = "best val top-1 %"
COUNT = "n"
# What one job is told from another by, beside what was chosen for it.
SEED_KEYS = ("seed", "teacher.seed")


@dataclass(frozen=True)
class Row:
    """One finished job. chosen: swept name → value as typed. figures: name with unit → number."""

    number: int
    chosen: dict[str, str]
    figures: dict[str, float | None]
    run: Path


@dataclass(frozen=True)
class Unfinished:
    """A job without a result: its state in a word, the last line of its error, its log."""

    number: int
    words: list[str]
    state: str
    error: str
    log: Path | None


@dataclass(frozen=True)
class Jobs:
    """All jobs of a sweep; rows: the finished ones, best first."""

    rows: list[Row]
    unfinished: list[Unfinished]


@dataclass(frozen=True)
class Setting:
    """What was chosen besides the seed, and the figures of all its seeds."""

    chosen: dict[str, str]
    figures: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0

    @property
    def rank(self) -> float | None:
        """Mean validation accuracy in percent; None where nothing was held out."""
        values = self.figures.get(VALIDATION)
        return statistics.fmean(values) if values else None

    def words(self) -> str:
        """The setting as it is typed."""
        return " ".join(f"{name}={value}" for name, value in self.chosen.items())

    def text(self, name: str) -> str:
        """A cell of the ranked table: `93.10 ± 0.40` for several seeds."""
        if name == COUNT:
            return str(self.count)
        if name in self.chosen:
            return self.chosen[name]
        values = self.figures.get(name, [])
        if not values:
            return ""
        mean = format.percent(statistics.fmean(values))
        return f"{mean} ± {format.percent(statistics.stdev(values))}" if len(values) > 1 else mean

    def numbers(self) -> dict[str, Any]:
        """A line of `ranking.csv`: mean and standard deviation in columns of their own."""
        line: dict[str, Any] = {**self.chosen, COUNT: self.count}
        for name, values in self.figures.items():
            line[f"{name} mean"] = statistics.fmean(values)
            line[f"{name} std"] = statistics.stdev(values) if len(values) > 1 else None
        return line


def read_jobs(folder: SweepFolder) -> Jobs:
    """The jobs of a sweep as they stand now."""
    rows, unfinished = [], []
    for number, words in enumerate(folder.differences()):
        note = folder.note(number)
        if fault := folder.note_fault(number):
            unfinished.append(Unfinished(number, words, "damaged", fault, None))
            continue
        if note is None:
            unfinished.append(Unfinished(number, words, "not started", "it was not its turn", None))
            continue
        run = Path(note["run"]) if note.get("run") else None
        read = read_run(run) if run is not None else None
        result = read.result if read is not None else {}
        if run is not None and result.get("status") == COMPLETED:
            rows.append(Row(number, _chosen(words), _figures(result), run))
            continue
        log = run / "run.log" if run is not None else None
        if read is not None and read.fault:
            unfinished.append(Unfinished(number, words, "damaged", read.fault, log))
            continue
        states = {None: "did not end", 130: "interrupted"}
        state = states.get(note.get("code"), "failed")
        error = note.get("error") or result.get("error") or "its process ended"
        unfinished.append(Unfinished(number, words, state, str(error), log))
    rows.sort(key=lambda row: (-(row.figures.get(VALIDATION) or 0.0), row.number))
    return Jobs(rows, unfinished)


def group(rows: Iterable[Row]) -> list[Setting]:
    """The settings of finished jobs, seeds taken together, best first; ties keep their order."""
    found: dict[tuple[tuple[str, str], ...], Setting] = {}
    for row in sorted(rows, key=lambda row: row.number):
        chosen = {name: value for name, value in row.chosen.items() if name not in SEED_KEYS}
        key = tuple(chosen.items())
        setting = found.setdefault(key, Setting(chosen))
        for name, value in row.figures.items():
            if value is not None:
                setting.figures.setdefault(name, []).append(value)
        found[key] = Setting(chosen, setting.figures, setting.count + 1)
    return sorted(found.values(), key=lambda setting: -(setting.rank or 0.0))


def columns(settings: Sequence[Setting]) -> list[str]:
    """What was chosen, n, then the figures, as the settings have them."""
    chosen = dict.fromkeys(name for setting in settings for name in setting.chosen)
    figures = dict.fromkeys(name for setting in settings for name in setting.figures)
    return [*chosen, COUNT, *figures]


def write_files(folder: Path, rows: Sequence[Row], settings: Sequence[Setting]) -> None:
    """`summary.csv` and `.md` with a line per job, `ranking.csv` and `.md` with one per setting.

    Raises ConfigError, and writes none, where one of them is there that kdrun did not write.
    """
    require_own(folder, FILES, "delete it")
    lines = [{"job": r.number, **r.chosen, **r.figures, "run": str(r.run)} for r in rows]
    write_own(folder / "summary.csv", csv_of_records(lines), "delete it")
    names = list(dict.fromkeys(name for line in lines for name in line))
    cells = [[_text(line.get(name)) for name in names] for line in lines]
    _write_markdown(folder / "summary.md", names, cells)
    table = csv_of_records([setting.numbers() for setting in settings])
    write_own(folder / "ranking.csv", table, "delete it")
    names = columns(settings)
    cells = [[setting.text(name) for name in names] for setting in settings]
    _write_markdown(folder / "ranking.md", names, cells)


def _figures(result: dict[str, Any]) -> dict[str, float | None]:
    """The figures of one finished job."""
    if result["command"] == "train-teacher":
        teacher = result["teachers"][0]
        return {**_validation(teacher), **_test(teacher)}
    if result["command"] == "benchmark":
        measured = result["benchmark"]["variants"]["this configuration"]
        return {
            "ms/step": measured["step_ms"]["median"],
            "images/s": measured["images_per_second"],
            "bare/whole": result["benchmark"]["bare_over_whole"]["median"],
        }
    if result["command"] == "evaluate":
        return _test(result["student"])
    student = result["student"]
    return {
        **_validation(student),
        **_test(student),
        "gain": result["gain"],
        "agreement %": result["agreement"],
        "seconds": result["time"]["seconds"],
    }


def _validation(network: dict[str, Any]) -> dict[str, float | None]:
    best = network.get("best_val")
    return {VALIDATION: best["val_top1"] if best else None}


def _test(network: dict[str, Any]) -> dict[str, float | None]:
    return {"test top-1 %": network["test"]["top1"], "errors": network["test"]["errors"]}


def _chosen(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words) if value}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return format.percent(value) if isinstance(value, float) else str(value)


def _write_markdown(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    write_own(path, ("\n".join(lines) + "\n").encode(), "delete it")
