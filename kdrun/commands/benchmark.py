"""`kdrun benchmark`: where a step's time goes, and its distance from bare compute."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.config.benchmark import benchmark_config
from kdrun.config.schema import BenchmarkConfig

ORDER = 60
SUMMARY = "where a step's time goes, and how far it is from bare compute"
EXAMPLES = (
    "kdrun benchmark dataset=mnist dataset.root=data teacher=mlp1200 student=mlp800",
    "kdrun benchmark compare=[usual,compiled] compile=false",
    "kdrun benchmark teacher=resnet56 student=resnet8 dataset=synthetic dataset.image_size=32",
)
SWEEPS = True
TORCHRUN = False


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import app

    return app.run_verb("benchmark", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> BenchmarkConfig:
    """The typed and checked configuration."""
    return benchmark_config(cfg)


def execute(config: Any, argv: list[str], sweep_dir: Path | None = None, job: int = 0) -> Any:
    """Do the work of one run; returns its result."""
    from kdrun.sweeps import execute as commands

    return commands.benchmark(config, argv, sweep_dir=sweep_dir, job=job)
