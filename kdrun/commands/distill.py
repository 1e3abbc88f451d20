"""`kdrun distill`: train or find the teacher, then distil the student."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.cli import peers
from kdrun.config import parse, validate
from kdrun.config.schema import DistillConfig

ORDER = 20
SUMMARY = "train or find the teacher, then distil the student"
EXAMPLES = (
    "kdrun distill student=cnn_tiny T=4 alpha=0.9",
    "kdrun distill 'loss=[kd,sp]' loss.sp.weight=1000 epochs=60",
    "kdrun distill -m T=1,4,20 alpha=0.1,0.9 seed=0,1,2",
)
SWEEPS = True
TORCHRUN = True


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import app

    return app.run_verb("distill", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> DistillConfig:
    """The typed and checked configuration; networks that a scheme names are filled in."""
    peers.fill_in(cfg, config_dir)
    found = parse.distill_config(cfg)
    validate.validate_distill(found)
    return found


def execute(config: Any, argv: list[str], sweep_dir: Path | None = None, job: int = 0) -> Any:
    """Do the work of one run; returns its result."""
    from kdrun.sweeps import execute as commands

    return commands.distill(config, argv, sweep_dir=sweep_dir, job=job)
