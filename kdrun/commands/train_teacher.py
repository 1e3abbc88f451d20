"""`kdrun train-teacher`: train a teacher, or find it in the teacher store."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.config import parse, rules
from kdrun.config.schema import TrainTeacherConfig

TRAINS = True
ORDER = 10
SUMMARY = "train a teacher, or reuse it from the teacher store"
EXAMPLES = (
    "kdrun train-teacher dataset=digits teacher=cnn_large",
    "kdrun train-teacher epochs=60 lr=0.1 seed=1",
    "kdrun train-teacher schedule@teacher.schedule=cosine",
)
SWEEPS = True
TORCHRUN = True


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import execution

    return execution.run_verb("train-teacher", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> TrainTeacherConfig:
    """The validated dataclass of the configuration."""
    typed = parse.train_teacher_config(cfg)
    rules.train_teacher(typed)
    return typed


def execute(
    config: TrainTeacherConfig, argv: list[str], sweep_dir: Path | None = None, job: int = 0
) -> dict[str, Any]:
    """Train the teachers, or find them in the store; returns the run's result."""
    from kdrun.distillation.initial_weights import check_teachers
    from kdrun.distillation.session import open_session
    from kdrun.distillation.teacher_run import run_train_teacher
    from kdrun.sweeps.jobs import job_label, run_or_reuse, time_limit_seconds

    check_teachers(config.teachers)
    limit, label = time_limit_seconds(config.runtime, sweep_dir), job_label(sweep_dir, job)
    with open_session(config.runtime, limit, label) as session:
        return run_or_reuse(
            session,
            config,
            lambda folder: run_train_teacher(config, folder, session, argv),
            sweep_dir,
            job,
        )
