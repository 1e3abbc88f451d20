"""What a sweep says: the list before the first job, a line after each, the ranking at the end.

Hydra runs the jobs; what they left is read from the sweep's folder (`kdrun.runs.sweeps`) and from
the run folders, so it makes no difference which process did them.
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
from kdrun.errors import ConfigError, Interrupted, KdrunError
from kdrun.files import canonical_hash
from kdrun.runs.reading import read_result
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import ranking
from kdrun.sweeps.jobs import RunConfig, finished_run
from kdrun.ui import format
from kdrun.ui.reporter import Reporter
from kdrun.ui.tables import add_row, new_table

WATCH_SECONDS = 0.5


def announce(folder: SweepFolder, configs: Sequence[Any], launcher: str) -> None:
    """Say what will be done: the jobs, those done before, the teachers, the processes."""
    settings = folder.read()
    reporter = Reporter(settings["ui"])
    runs = [config for config in configs if isinstance(config, RunConfig)]
    try:
        datasets = open_datasets(runs, folder)
    except KdrunError as error:  # each job will meet it again, and say it as its own
        datasets = {}
        reporter.warn(f"the data cannot be opened here: {error}")
    faults: dict[str, None] = {}
    done = [finished_run(config, folder, faults.setdefault) is not None for config in runs]
    for fault in faults:
        reporter.warn(fault)
    todo = f", {sum(done)} of them done before" if any(done) else ""
    reporter.heading(f"sweep of {len(configs)} jobs{todo}")
    for number, words in enumerate(folder.differences()):
        mark = "  (done before)" if number < len(done) and done[number] else ""
        reporter.say(f"  {number}: {' '.join(words)}{mark}")
    waiting = [config for config, ready in zip(runs, done, strict=True) if not ready]
    for line in _teacher_lines(waiting, datasets):
        reporter.say(f"  {line}")
    if launcher:
        reporter.say(f"  {launcher}")
    reporter.say(f"  folder: {folder.path}")


def _data_key(config: RunConfig) -> str:
    return canonical_hash([repr(config.dataset), config.val_fraction])


def open_datasets(configs: Sequence[RunConfig], folder: SweepFolder) -> dict[str, Dataset]:
    """Each data set of the jobs, opened (and decoded) once; the folder notes which they are."""
    found: dict[str, Dataset] = {}
    if configs:
        with open_session(configs[0].runtime) as session:
            for config in configs:
                if _data_key(config) not in found:
                    data = open_data(session, config.dataset, config.val_fraction)
                    found[_data_key(config)] = data
    folder.add(data=sorted({dataset.fingerprint for dataset in found.values()}))
    return found


def _teacher_lines(configs: Sequence[RunConfig], datasets: dict[str, Dataset]) -> list[str]:
    """A line for each teacher that the jobs need and the store lacks, and for each that it has."""
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
    """The line after a job: how it ended, and the time left for those that wait."""
    settings, note = folder.read(), folder.note(job)
    if note is None or note.get("reused"):
        return
    total = settings.get("total") or len(settings["jobs"])
    ended = [one for one in folder.notes() if one.get("code") is not None]
    how = "done in" if note["code"] == 0 else "ended after"
    took = note.get("seconds")  # None: its process was killed
    line = (
        f"job {job + 1} of {total} {'ended' if took is None else f'{how} {format.seconds(took)}'}"
    )
    seconds = [s for one in ended if (s := _own_seconds(one)) is not None]
    rest = total - len(ended)
    if rest and seconds:
        left = sum(seconds) / len(seconds) * rest / min(settings["processes"], rest)
        line += f"; {rest} to go, about {format.seconds(left)} if each takes as long"
    reporter = Reporter(settings["ui"])
    if settings["launcher"] == "basic":  # after the job's own lines
        reporter.say()
    reporter.say(line, style="bold")


def _own_seconds(note: dict[str, Any]) -> float | None:
    """What a job took, without a teacher it trained for all; None for one not really run."""
    if note.get("reused") or note["code"] != 0:
        return None
    result = read_result(Path(note["run"])) if note.get("run") else None
    teacher = ((result or {}).get("time") or {}).get("teacher_seconds", 0.0)
    return max(0.0, note["seconds"] - teacher)


@contextmanager
def watching(folder: SweepFolder) -> Iterator[None]:
    """Say how jobs end that other processes do."""
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
        except Interrupted:  # nobody reads the screen any more: the sweep stops, in its own thread
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
    """The ranking on the screen and in files, then the jobs that are not done."""
    settings = folder.read()
    reporter = Reporter(settings["ui"])
    found = ranking.read_jobs(folder)
    if found.rows:
        settings_ranked = ranking.rank(found.rows)
        try:
            ranking.write_files(folder.path, found.rows, settings_ranked)
        except ConfigError as error:  # the table is on the screen all the same
            reporter.warn(f"The ranking's files are not written: {error}")
        _show(settings_ranked, len(found.rows), folder, reporter)
    for job in found.unfinished:
        reporter.warn(f"job {job.number} ({' '.join(job.words)}) {job.state}: {job.error}")
        if job.log is not None:
            reporter.say(f"    log: {job.log}")
    if found.unfinished:
        reporter.say_last(
            f"  go on: kdrun resume {folder.path}, or the same command again; finished jobs are "
            "not repeated"
        )


def _show(ranked: ranking.Ranking, jobs: int, folder: SweepFolder, reporter: Reporter) -> None:
    groups = ranked.groups
    by_validation = groups[0].rank is not None
    how = (
        "ranked by validation accuracy (best epoch); the test split chose nothing"
        if by_validation
        else "not ranked: there is no validation split"
    )
    reporter.heading(f"sweep: {how}")
    table = new_table(*ranked.columns)
    for group in groups:
        add_row(table, *ranked.cells(group))
    reporter.show(table)
    if any(len(group.runs) > 1 for group in groups):
        reporter.say(f"  mean ± standard deviation over n seeds; {jobs} jobs")
    if by_validation and len(groups) > 1:
        ties = sum(group.rank == groups[0].rank for group in groups) - 1
        also = f" (the first of {ties + 1} alike)" if ties else ""
        reporter.say(f"  best on validation{also}: {ranking.setting(groups[0])}")
    reporter.say(
        f"  files: {folder.path}/ranking.csv, ranking.md (by setting), summary.csv, summary.md "
        "(by job)"
    )
