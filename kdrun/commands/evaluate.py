"""`kdrun evaluate`: measure a finished student or any checkpoint."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.config import parse, rules
from kdrun.config.schema import EvaluateConfig

ORDER = 30
SUMMARY = "evaluate a finished student, or any checkpoint"
EXAMPLES = (
    "kdrun evaluate run=outputs/distill/digits/...",
    "kdrun evaluate run=outputs/distill/digits/... dataset=digits",
    "kdrun evaluate run=student.safetensors dataset=digits device=cpu",
    "kdrun evaluate run=resnet56.pth teacher=resnet56 dataset=cifar100",
)
SWEEPS = True
TORCHRUN = True


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import execution

    return execution.run_verb("evaluate", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> EvaluateConfig:
    """The validated dataclass of the configuration."""
    typed = parse.evaluate_config(cfg)
    rules.evaluate(typed)
    return typed


def execute(
    config: EvaluateConfig, argv: list[str], sweep_dir: Path | None = None, job: int = 0
) -> dict[str, Any]:
    """Measure a student or checkpoint; returns the run's result."""
    from kdrun.distillation.session import open_session
    from kdrun.evaluation.evaluate import run_evaluate
    from kdrun.runs.sweeps import SweepFolder
    from kdrun.sweeps.jobs import note_run, time_limit_seconds

    def started(run: Path) -> None:
        if sweep_dir is not None:
            note_run(SweepFolder(sweep_dir), job, run)

    with open_session(config.runtime, time_limit_seconds(config.runtime, sweep_dir)) as session:
        return run_evaluate(config, session, argv, started)
