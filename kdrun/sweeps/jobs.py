"""One job of a sweep: reuse its finished run, continue its interrupted one, or start a new one."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from kdrun.config.schema import DistillConfig, RuntimeConfig, TrainTeacherConfig
from kdrun.distillation.run_identity import identity, run_name, teacher_identity
from kdrun.distillation.session import Session
from kdrun.files import held, require_root
from kdrun.runs.folder import RunFolder, counted_names
from kdrun.runs.reading import matching, read_result
from kdrun.runs.result import COMPLETED
from kdrun.runs.search import find_run, group_folder
from kdrun.runs.sweeps import SweepFolder
from kdrun.ui.reporter import Reporter

RunConfig = DistillConfig | TrainTeacherConfig
Result = dict[str, Any]


def run_place(config: RunConfig) -> tuple[Path, str]:
    """(folder that holds all runs of this name, identity of this run)."""
    root, data = Path(config.runtime.output_root), config.dataset.name
    if isinstance(config, DistillConfig):
        return group_folder(root, "distill", data, run_name(config)), identity(config)
    name = counted_names(teacher.network.name for teacher in config.teachers)
    return group_folder(root, "train-teacher", data, name), teacher_identity(config)


def finished_run(
    config: RunConfig, data: Collection[str], warn: Callable[[str], None] = lambda fault: None
) -> Path | None:
    """The newest finished run of a configuration.

    data: fingerprints of the data sets it may have used; empty: any.
    warn: called with a sentence about each damaged run; damaged runs are not reused.
    """
    group, key = run_place(config)

    def matches(result: Result) -> bool:
        if result.get("identity") != key or result.get("status") != COMPLETED:
            return False
        transfer = result.get("transfer") or {}
        used = [result.get("dataset") or {}, *([transfer] if transfer.get("folder") else [])]
        return not data or all(images.get("fingerprint") in data for images in used)

    return next((run for run, _ in matching(group, matches, warn)), None)


def run_or_reuse(
    session: Session,
    config: RunConfig,
    run: Callable[[RunFolder], Result],
    sweep_dir: Path | None,
    job: int,
) -> Result:
    """Do `run` in a run folder and return its result, with the folder's path as `folder`.

    Outside a sweep the folder is new. A job of a sweep takes the result of its finished run, or the
    folder of its interrupted one; a process that is running the same job is waited for.
    """
    group, key = run_place(config)
    require_root(session.output_root, group, session.output_root / "teachers" / config.dataset.name)
    if sweep_dir is None:
        folder = RunFolder.new_in(group)
        result = run(folder)
        return {**result, "folder": str(folder.path)}
    sweep = SweepFolder(sweep_dir)
    say_job(session.reporter, sweep, job)

    def waiting() -> None:
        session.reporter.say("  another process is running this job; waiting")

    with held(group.parent.parent / ".locks" / f"job-{key[:16]}.lock", waiting):
        finished = finished_run(config, sweep.data(), session.reporter.warn)
        if finished is not None:
            sweep.update(job, run=str(finished), reused=True)
            session.reporter.say(f"  finished before: {finished}")
            return {**(read_result(finished) or {}), "folder": str(finished)}
        unfinished = find_run(group, "identity", key, finished=False)
        if unfinished is not None and RunFolder(unfinished).is_free():
            folder = RunFolder(unfinished)
        else:
            folder = RunFolder.new_in(group)
        note_run(sweep, job, folder.path)
        result = run(folder)
        note_run(sweep, job, folder.path)  # a new folder may get another name when it is made
        return {**result, "folder": str(folder.path)}


def note_run(sweep: SweepFolder, job: int, run: Path) -> None:
    """Record in the sweep's folder which run a job is doing."""
    sweep.update(job, run=str(run), reused=False)


def job_label(sweep_dir: Path | None, job: int) -> str | None:
    """`job 3/4` for job number 2 of a sweep; None outside one."""
    return None if sweep_dir is None else label_of(job, SweepFolder(sweep_dir).total())


def label_of(job: int, total: int) -> str:
    """`job 3/4`: how a job is named everywhere. job: counted from 0, as in the sweep's files."""
    return f"job {job + 1}/{total}"


def say_job(reporter: Reporter, sweep: SweepFolder, job: int) -> None:
    """The heading of a job's own output."""
    words = sweep.differences()
    reporter.heading(f"{job_label(sweep.path, job)}: {' '.join(words[job])}")


def time_limit_seconds(runtime: RuntimeConfig, sweep_dir: Path | None) -> float | None:
    """`sweep.job_minutes` in seconds; None outside a sweep."""
    minutes = runtime.sweep.job_minutes
    return None if sweep_dir is None or minutes is None else 60.0 * minutes
