"""The verbs, as the command line calls them: one function each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kdrun.config import parse
from kdrun.config.schema import (
    BenchmarkConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    TrainTeacherConfig,
)
from kdrun.errors import ConfigError
from kdrun.runs.folder import RunFolder, counted_names
from kdrun.runs.result import COMPLETED, read_result
from kdrun.runs.search import find_run, group_folder
from kdrun.stages import sweep
from kdrun.stages.benchmark import run_benchmark
from kdrun.stages.distill import identity, run_distill, run_name
from kdrun.stages.evaluate import run_evaluate
from kdrun.stages.export import run_export
from kdrun.stages.figures import show_result
from kdrun.stages.session import Session, open_session
from kdrun.stages.teacher_run import run_train_teacher, teacher_identity

Result = dict[str, Any]


def train_teacher(
    config: TrainTeacherConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Train a teacher, or find it in the store."""
    with open_session(config.runtime) as session:
        name = counted_names(teacher.network.name for teacher in config.teachers)
        group = group_folder(session.output_root, "train-teacher", config.dataset.name, name)

        def run(folder: RunFolder) -> Result:
            return run_train_teacher(config, folder, session, argv)

        return _run(session, group, teacher_identity(config), run, sweep_dir, job)


def distill(
    config: DistillConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Train or find the teacher, then distil the student."""
    with open_session(config.runtime) as session:
        group = group_folder(session.output_root, "distill", config.dataset.name, run_name(config))

        def run(folder: RunFolder) -> Result:
            return run_distill(config, folder, session, argv)

        return _run(session, group, identity(config), run, sweep_dir, job)


def evaluate(
    config: EvaluateConfig, argv: Sequence[str], sweep_dir: Path | None = None, job: int = 0
) -> Result:
    """Measure a finished student, or any checkpoint, again."""
    with open_session(config.runtime) as session:
        return run_evaluate(config, session, argv)


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
        folder = RunFolder.create_in(group_folder(session.output_root, "benchmark", data, name))
        if sweep_dir is not None:
            sweep.say_job(session.reporter, sweep_dir, job)
            sweep.record_job(sweep_dir, job, folder.path)
        return run_benchmark(config, folder, session, argv)


def resume(path: Path) -> Result:
    """Go on with an interrupted run.

    Raises ConfigError for folders that hold none.
    """
    result = read_result(path)
    if result is None or not (path / "config.yaml").is_file():
        raise ConfigError(f"{path} is not the folder of a run (no result.json and config.yaml).")
    cfg = OmegaConf.load(path / "config.yaml")
    argv = ["resume", str(path)]
    folder = RunFolder(path)
    if result["command"] == "train-teacher":
        teacher_config = parse.train_teacher_config(cfg)  # type: ignore[arg-type]
        with open_session(teacher_config.runtime) as session:
            if result["status"] == COMPLETED:
                return _done_before(session, path, result)
            return run_train_teacher(teacher_config, folder, session, argv)
    if result["command"] == "distill":
        config = parse.distill_config(cfg)  # type: ignore[arg-type]
        with open_session(config.runtime) as session:
            if result["status"] == COMPLETED:
                return _done_before(session, path, result)
            return run_distill(config, folder, session, argv)
    raise ConfigError(f"{path} is a run of 'kdrun {result['command']}': just type it again.")


def _run(
    session: Session,
    group: Path,
    key: str,
    run: Callable[[RunFolder], Result],
    sweep_dir: Path | None,
    job: int,
) -> Result:
    """A new run; as a job of a sweep, the same run done or begun before is used instead."""
    if sweep_dir is None:
        return run(RunFolder.create_in(group))
    sweep.say_job(session.reporter, sweep_dir, job)
    done = find_run(group, "identity", key, finished=True)
    if done is not None:
        sweep.record_job(sweep_dir, job, done)
        session.reporter.say(f"  done before: {done}")
        return read_result(done) or {}
    begun = find_run(group, "identity", key, finished=False)
    folder = (
        RunFolder(begun) if begun and RunFolder(begun).is_free() else RunFolder.create_in(group)
    )
    sweep.record_job(sweep_dir, job, folder.path)
    return run(folder)


def _done_before(session: Session, path: Path, result: Result) -> Result:
    session.reporter.say(f"{path} is complete; there is nothing to go on with.")
    if result["command"] == "distill":
        show_result(path, result, session.reporter)
    return result
