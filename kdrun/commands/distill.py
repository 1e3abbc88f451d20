"""`kdrun distill`: train or find the teacher, then distil the student."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from kdrun.cli import scheme_networks
from kdrun.config import parse, rules
from kdrun.config.schema import DistillConfig

if TYPE_CHECKING:
    from kdrun.distillation.session import Session

TRAINS = True
ORDER = 20
SUMMARY = "train or reuse the teacher, then distil the student"
EXAMPLES = (
    "kdrun distill student=cnn_tiny T=4 alpha=0.9",
    "kdrun distill 'loss=[kd,sp]' loss.sp.weight=10 epochs=60",
    "kdrun distill -m T=1,4,20 alpha=0.1,0.9 seed=0,1,2",
)
SWEEPS = True
TORCHRUN = True


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import execution

    return execution.run_verb("distill", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> DistillConfig:
    """The validated dataclass of the configuration; networks that a scheme names are filled in."""
    scheme_networks.fill_in(cfg, config_dir)
    typed = parse.distill_config(cfg)
    rules.distill(typed)
    return typed


def execute(
    config: DistillConfig, argv: list[str], sweep_dir: Path | None = None, job: int = 0
) -> dict[str, Any]:
    """Train or find the teacher, then distil the student; returns the run's result."""
    from kdrun.distillation.session import open_session
    from kdrun.sweeps.jobs import job_label, time_limit_seconds

    limit, label = time_limit_seconds(config.runtime, sweep_dir), job_label(sweep_dir, job)
    with open_session(config.runtime, limit, label) as session:
        return execute_in(session, config, argv, sweep_dir, job)


def execute_in(
    session: "Session",
    config: DistillConfig,
    argv: Sequence[str],
    sweep_dir: Path | None = None,
    job: int = 0,
) -> dict[str, Any]:
    """`execute` in an open session, for jobs that share one."""
    from kdrun.distillation.initial_weights import check_start, check_teachers
    from kdrun.distillation.run import run_distill
    from kdrun.sweeps.jobs import run_or_reuse

    check_teachers(config.teachers)
    check_start(config)
    return run_or_reuse(
        session,
        config,
        lambda folder: run_distill(config, folder, session, argv),
        sweep_dir,
        job,
    )
