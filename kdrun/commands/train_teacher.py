"""`kdrun train-teacher`: train a teacher, or find it in the teacher store."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.config import parse, validate
from kdrun.config.schema import TrainTeacherConfig

ORDER = 10
SUMMARY = "train a teacher, or find it in the teacher store"
EXAMPLES = (
    "kdrun train-teacher dataset=digits teacher=cnn_large",
    "kdrun train-teacher epochs=60 lr=0.1 seed=1",
    "kdrun train-teacher schedule@teacher.schedule=cosine",
)
SWEEPS = True
TORCHRUN = True


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import app

    return app.run_verb("train-teacher", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> TrainTeacherConfig:
    """The typed and checked configuration."""
    found = parse.train_teacher_config(cfg)
    validate.validate_train_teacher(found)
    return found


def execute(config: Any, argv: list[str], sweep_dir: Path | None = None, job: int = 0) -> Any:
    """Do the work of one run; returns its result."""
    from kdrun.sweeps import execute as commands

    return commands.train_teacher(config, argv, sweep_dir=sweep_dir, job=job)
