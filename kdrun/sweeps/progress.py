"""A sweep on the screen: its head, a line for each job that has ended, the ranking.

Everything is read from the sweep's folder (`kdrun.runs.sweeps`) and the run folders, so it does not
matter which process ran a job.
"""

import signal
import threading
from _thread import interrupt_main
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdrun.data.dataset import Dataset
from kdrun.distillation.session import open_data, open_session
from kdrun.distillation.teacher_recipe import teacher_entry
from kdrun.distillation.transfer import data_fingerprints
from kdrun.errors import EXIT_DONE, EXIT_INTERRUPTED, ConfigError, Interrupted, KdrunError
from kdrun.files import canonical_hash
from kdrun.report.metrics_table import BASELINE, GAIN, TEST, WINNER
from kdrun.runs.reading import read_result
from kdrun.runs.result import RunResult
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import ranking
from kdrun.sweeps.jobs import RunConfig, finished_run, label_of
from kdrun.ui import format
from kdrun.ui.reporter import Reporter
from kdrun.ui.tables import add_row, new_table

WATCH_SECONDS = 0.5


def announce(folder: SweepFolder, configs: Sequence[Any], launcher: str) -> None:
    """The head of a sweep: its size at once, then data, teachers, and the header of the job lines.

    Every job gets its line when it has ended; `--dry-run` lists them beforehand.
    """
    settings = folder.read()
    reporter = Reporter(settings["ui"])
    runs = [config for config in configs if isinstance(config, RunConfig)]
    reporter.heading(f"sweep of {len(configs)} job{'s' * (len(configs) != 1)}")
    reporter.say(f"  folder: {folder.path}")
    try:
        datasets = open_datasets(runs, folder)
    except KdrunError as error:  # each job reports the error itself
        datasets = {}
        reporter.warn(f"the data cannot be opened here: {error}")
    faults: dict[str, None] = {}
    data = folder.data()
    finished = [finished_run(config, data, faults.setdefault) is not None for config in runs]
    for fault in faults:
        reporter.warn(fault)
    waiting = [config for config, ready in zip(runs, finished, strict=True) if not ready]
    for line in _format_teachers(waiting, datasets):
        reporter.say(f"  {line}")
    if any(finished):
        reporter.say(f"  {sum(finished)} of {len(configs)} jobs finished before")
    if launcher:
        reporter.say(f"  {launcher}")
    reporter.say()
    reporter.say(job_line(_width(folder), *HEADER), style="bold")


HEADER = ("job", "setting", "baseline %", "distilled %", "gain", "time", "left")


def job_line(width: int, *cells: str) -> str:
    """A line of the table of jobs. width: of the settings."""
    number, setting, baseline, distilled, gain, took, left = cells
    return (
        f"  {number:<9}  {setting:<{width}}  {baseline:>10}  {distilled:>11}  {gain:>6}  "
        f"{took:>8}  {left:>8}"
    ).rstrip()


def _width(folder: SweepFolder) -> int:
    words = [" ".join(one) for one in folder.differences()]
    return max([len("setting"), *map(len, words)])


def _data_key(config: RunConfig) -> str:
    return canonical_hash([repr(config.dataset), config.val_fraction])


def open_datasets(configs: Sequence[RunConfig], folder: SweepFolder) -> dict[str, Dataset]:
    """Open (and decode) each data set once; records the fingerprints in the sweep folder."""
    found: dict[str, Dataset] = {}
    fingerprints: dict[str, list[str]] = {}
    if configs:
        with open_session(configs[0].runtime) as session:
            for config in configs:
                if _data_key(config) not in found:
                    data = open_data(session, config.dataset, config.val_fraction)
                    found[_data_key(config)] = data
                images = f"{_data_key(config)} {getattr(config, 'transfer', None)}"
                if images not in fingerprints:
                    fingerprints[images] = data_fingerprints(
                        config, found[_data_key(config)], session
                    )
    folder.add(data=sorted({each for images in fingerprints.values() for each in images}))
    return found


def _format_teachers(configs: Sequence[RunConfig], datasets: dict[str, Dataset]) -> list[str]:
    """A line per required teacher: missing from the store, or found."""
    lines: dict[str, None] = {}
    for config in configs:
        dataset = datasets.get(_data_key(config))
        for teacher in config.teachers:
            if teacher.checkpoint is not None or dataset is None:
                continue
            root = Path(config.runtime.output_root)
            entry = teacher_entry(teacher, config.dataset, dataset, root)
            how = "in the store" if entry.is_filled() else "will be trained, once"
            name = f"{teacher.network.name} (seed {teacher.seed})"
            lines[f"teacher {name}: {how} ({entry.folder})"] = None
    return sorted(lines, key=lambda line: "in the store" in line)


def say_progress(folder: SweepFolder, job: int) -> None:
    """The line of a job that has ended: setting, baseline, distilled, gain, time, time left."""
    settings, note = folder.read(), folder.note(job)
    if note is None:
        return
    total = folder.total()
    words = folder.differences()
    reporter = Reporter(settings["ui"])
    code = note.get("code")
    values = read_result(Path(note["run"])) if note.get("run") and code == EXIT_DONE else None
    result = RunResult.from_dict(values or {}, check=False)
    baseline, student, gain = result.alone.test.top1, result.trained.test.top1, result.gain
    seconds = _own_seconds(note)
    took = "reused" if note.get("reused") else "" if seconds is None else format.seconds(seconds)
    if note.get("over_budget"):
        took = "skipped"
    if code not in (EXIT_DONE, None):
        took = "stopped" if code == EXIT_INTERRUPTED else "failed"
    reporter.say(
        job_line(
            _width(folder),
            label_of(job, total),
            " ".join(words[job]),
            "" if baseline is None else format.percent(baseline),
            "" if student is None else format.percent(student),
            "" if gain is None else format.points(gain),
            took,
            _time_left(folder, settings, total),
        )
    )
    if note.get("over_budget"):
        reporter.say(f"    over budget: {note['over_budget']}")
    # Others say it on standard error; a process that was killed (no seconds) could not.
    unsaid = settings["launcher"] not in ("basic", "joblib") or note.get("seconds") is None
    if code not in (EXIT_DONE, None, EXIT_INTERRUPTED) and unsaid:
        reporter.say(f"    {note.get('error')}")


def _time_left(folder: SweepFolder, settings: dict[str, Any], total: int) -> str:
    """Estimated remaining time; empty at the end and without a measurement."""
    ended = [one for one in folder.notes() if one.get("code") is not None]
    seconds = [s for one in ended if (s := _own_seconds(one)) is not None]
    left = total - len(ended)
    if not left or not seconds:
        return ""
    return format.seconds(sum(seconds) / len(seconds) * left / min(settings["processes"], left))


def _own_seconds(note: dict[str, Any]) -> float | None:
    """A job's own time, without a teacher it trained for all; None for one that did not run."""
    if note.get("reused") or note.get("code") != EXIT_DONE or note.get("seconds") is None:
        return None
    result = read_result(Path(note["run"])) if note.get("run") else None
    teacher = ((result or {}).get("time") or {}).get("teacher_seconds", 0.0)
    return max(0.0, float(note["seconds"]) - float(teacher))


@contextmanager
def watching(folder: SweepFolder) -> Iterator[None]:
    """Report jobs of other processes as they end."""
    finished = threading.Event()
    said: set[int] = set()

    def look() -> None:
        for note in folder.notes():
            if note.get("code") is not None and note["job"] not in said:
                said.add(note["job"])
                say_progress(folder, note["job"])

    def watch() -> None:
        try:
            while not finished.wait(WATCH_SECONDS):
                look()
        except Interrupted:  # the screen is lost: stop the sweep from its own thread
            interrupt_main(signal.SIGTERM)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        look()


def summarise(folder: SweepFolder) -> None:
    """The ranking on the screen and in files, then the unfinished jobs."""
    settings = folder.read()
    reporter = Reporter(settings["ui"])
    found = ranking.read_jobs(folder)
    if found.rows:
        settings_ranked = ranking.rank(found.rows, found.over_budget)
        try:
            ranking.write_files(folder.path, found.rows, settings_ranked)
        except ConfigError as error:  # the table is already on the screen
            reporter.warn(f"The ranking's files are not written: {error}")
        _show(settings_ranked, len(found.rows), folder, reporter)
    for job in found.unfinished:
        # the reason of a failed job was shown when it failed
        reason = "" if job.state == "failed" and job.told else f": {job.error}"
        log = "" if job.log is None else f" (log: {job.log})"
        label = label_of(job.number, folder.total())
        reporter.warn(f"{label} {' '.join(job.words)} {job.state}{reason}{log}")
    if found.unfinished:
        reporter.say_last(
            f"  resume: kdrun resume {folder.path}, or type the command again; finished jobs are "
            "not repeated"
        )


# The columns of a ranking that a narrow screen keeps, besides the settings.
KEPT = (ranking.COUNT, GAIN.name, TEST.name, WINNER.name, BASELINE.name, ranking.OVER_BUDGET)


def fitting_columns(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[int], list[int]]:
    """(numbers of the columns that fit into `width`, of those that do not).

    Columns are taken from the right; what a ranking is read for stays.
    """
    shown = list(range(len(columns)))
    hidden: list[int] = []
    least = [
        max([*map(len, name.split()), *(len(row[number]) for row in rows)])
        for number, name in enumerate(columns)
    ]
    settings = columns.index(ranking.COUNT)
    for number in reversed(range(settings, len(columns))):
        if sum(least[one] + 2 for one in shown) <= width:
            break
        if columns[number] not in KEPT:
            shown.remove(number)
            hidden.insert(0, number)
    return shown, hidden


def _show(ranked: ranking.Ranking, jobs: int, folder: SweepFolder, reporter: Reporter) -> None:
    groups = ranked.groups
    by_validation = groups[0].rank is not None
    how = (
        "ranked by validation accuracy (best epoch); the test split chose nothing"
        if by_validation
        else "not ranked: there is no validation split"
    )
    reporter.heading(f"sweep: {how}")
    rows = ranked.rows()
    shown, hidden = fitting_columns(ranked.columns, rows, reporter.console.width)
    table = new_table(*(ranked.columns[number] for number in shown))
    for row in rows:
        add_row(table, *(row[number] for number in shown))
    reporter.show(table)
    if hidden:
        names = ", ".join(ranked.columns[number] for number in hidden)
        reporter.say(f"  in ranking.csv also: {names}")
    if any(len(group.runs) > 1 for group in groups):
        reporter.say(f"  mean ± standard deviation over n seeds; {jobs} jobs")
    if by_validation and len(rows) > 1:
        ties = sum(group.rank == groups[0].rank for group in groups) - 1
        also = f" (the first of {ties + 1} alike)" if ties else ""
        within = " within the budget" if ranked.over_budget else ""
        reporter.say(f"  best on validation{within}{also}: {ranking.setting(groups[0])}")
    verdict = groups[0].verdict
    if verdict.text():
        of = f" ({ranking.setting(groups[0])})" if len(groups) > 1 and verdict.outcome else ""
        reporter.say(f"  {verdict.text()}{of}")
    reporter.say(
        f"  files: {folder.path}/ranking.csv, ranking.md (by setting), summary.csv, summary.md "
        "(by job)"
    )
