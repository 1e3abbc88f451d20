"""The verbs, as the command line calls them: one function each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdrun.benchmarking.run import run_benchmark
from kdrun.checksums import find_fault
from kdrun.config import parse, places, validate
from kdrun.config.schema import (
    BenchmarkConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    RuntimeConfig,
    TrainTeacherConfig,
)
from kdrun.deploy.export import run_export
from kdrun.distillation.initial_weights import check_start, check_teachers
from kdrun.distillation.metrics import show_result
from kdrun.distillation.run import run_distill
from kdrun.distillation.run_identity import run_name
from kdrun.distillation.session import Session, open_session
from kdrun.distillation.teacher_run import run_train_teacher
from kdrun.errors import ConfigError
from kdrun.evaluation.evaluate import run_evaluate
from kdrun.files import held, require_root
from kdrun.runs.config import parsed, read_config
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import DESCRIPTION, WEIGHTS, read_result, read_run
from kdrun.runs.result import COMPLETED
from kdrun.runs.search import find_run, group_folder
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import progress as sweep

Result = dict[str, Any]


def train_teacher(
    config: TrainTeacherConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Train a teacher, or find it in the store."""
    check_teachers(config.teachers)
    with open_session(config.runtime, _limit(config.runtime, sweep_dir)) as session:

        def run(folder: RunFolder) -> Result:
            return run_train_teacher(config, folder, session, argv)

        return _run(session, config, run, sweep_dir, job)


def distill(
    config: DistillConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Train or find the teacher, then distil the student."""
    with open_session(config.runtime, _limit(config.runtime, sweep_dir)) as session:
        return distill_in(session, config, argv, sweep_dir, job)


def distill_in(
    session: Session,
    config: DistillConfig,
    argv: Sequence[str],
    sweep_dir: Path | None = None,
    job: int = 0,
) -> Result:
    """`distill` in surroundings that are there already."""
    check_teachers(config.teachers)
    check_start(config)

    def run(folder: RunFolder) -> Result:
        return run_distill(config, folder, session, argv)

    return _run(session, config, run, sweep_dir, job)


def evaluate(
    config: EvaluateConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Measure a finished student, or any checkpoint, again."""
    with open_session(config.runtime, _limit(config.runtime, sweep_dir)) as session:
        made = (lambda path: None) if sweep_dir is None else _noting(SweepFolder(sweep_dir), job)
        return run_evaluate(config, session, argv, made)


def export(
    config: ExportConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Write a finished network for other programs."""
    runtime = replace(config.runtime, device="cpu")
    with open_session(runtime) as session:
        return run_export(config, session, argv)


def benchmark(
    config: BenchmarkConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Measure where a step's time goes; as a job of a sweep it is always measured anew."""
    with open_session(config.distill.runtime) as session:
        name, data = run_name(config.distill), config.distill.dataset.name
        folder = RunFolder.new_in(group_folder(session.output_root, "benchmark", data, name))
        if sweep_dir is not None:
            sweep.say_job(session.reporter, SweepFolder(sweep_dir), job)
            _noting(SweepFolder(sweep_dir), job)(folder.path)
        return run_benchmark(config, folder, session, argv)


def resume(path: Path) -> Result:
    """Go on with an interrupted run.

    Raises ConfigError for folders that hold none.
    """
    fault = find_fault(path, DESCRIPTION)
    if fault:
        raise ConfigError(fault)
    # with a damaged result, history or student the run goes on from its last state
    result = read_run(path, WEIGHTS).values or None
    command = read_config(path, _command_of) if result is None else result["command"]
    argv = ["resume", str(path)]
    folder = RunFolder(path)
    if command == "train-teacher":
        teacher_config = read_config(path, parse.train_teacher_config)
        validate.validate_train_teacher(teacher_config)
        teacher_config, notes = places.resumed(teacher_config, path, command)
        with open_session(teacher_config.runtime) as session:
            _say_notes(session, notes)
            if result is not None and result["status"] == COMPLETED:
                return _done_before(session, path, result)
            return run_train_teacher(teacher_config, folder, session, argv)
    if command == "distill":
        config = read_config(path, parse.distill_config)
        validate.validate_distill(config)
        config, notes = places.resumed(config, path, command)
        with open_session(config.runtime) as session:
            _say_notes(session, notes)
            if result is not None and result["status"] == COMPLETED:
                return _done_before(session, path, result)
            return run_distill(config, folder, session, argv)
    raise ConfigError(f"{path} is a run of 'kdrun {command}': just type it again.")


def _say_notes(session: Session, notes: Sequence[str]) -> None:
    for note in notes:
        session.reporter.say(f"note: {note}")


def _command_of(cfg: Mapping[str, Any]) -> str:
    """The verb that such a configuration belongs to."""
    return "distill" if "student" in cfg else "evaluate" if "run" in cfg else "train-teacher"


def _run(
    session: Session,
    config: DistillConfig | TrainTeacherConfig,
    run: Callable[[RunFolder], Result],
    sweep_dir: Path | None,
    job: int,
) -> Result:
    """A new run; as a job of a sweep, the same run done or begun before is used instead."""
    group, key = sweep.place(config)
    require_root(session.output_root, group, session.output_root / "teachers" / config.dataset.name)
    if sweep_dir is None:
        return run(RunFolder.new_in(group))
    folder = SweepFolder(sweep_dir)
    sweep.say_job(session.reporter, folder, job)

    def waiting() -> None:
        session.reporter.say("  another sweep is at this very job; waiting for it")

    with held(group.parent.parent / ".locks" / f"job-{key[:16]}.lock", waiting):
        done = sweep.finished_run(config, folder, session.reporter.warn)
        if done is not None:
            folder.update(job, run=str(done), reused=True)
            session.reporter.say(f"  done before: {done}")
            return read_result(done) or {}
        begun = find_run(group, "identity", key, finished=False)
        goes_on = begun is not None and RunFolder(begun).is_free()
        own = RunFolder(begun) if begun and goes_on else RunFolder.new_in(group)
        folder.update(job, run=str(own.path), reused=False)
        result = run(own)
        folder.update(job, run=str(own.path))  # another name, if that one was taken
        return result


def _noting(folder: SweepFolder, job: int) -> Callable[[Path], None]:
    return lambda path: folder.update(job, run=str(path), reused=False)


def _limit(runtime: RuntimeConfig, sweep_dir: Path | None) -> float | None:
    """Seconds that a job of a sweep may take."""
    minutes = runtime.sweep.job_minutes
    return None if sweep_dir is None or minutes is None else 60.0 * minutes


def _done_before(session: Session, path: Path, result: Result) -> Result:
    RunFolder(path).tidy()
    session.reporter.say(f"{path} is complete; there is nothing to go on with.")
    if result["command"] == "distill":

        def show(values: Result) -> None:
            show_result(path, values, session.reporter)

        parsed(show, result, f"{path}/result.json")
    return result
