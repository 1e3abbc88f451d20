"""`kdrun benchmark`: the time of a training step by phase, and its share of peak compute."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.config import parse, rules
from kdrun.config.schema import BenchmarkConfig

ORDER = 60
SUMMARY = "measure where a step's time goes, compared with bare compute"
EXAMPLES = (
    "kdrun benchmark dataset=mnist dataset.root=data teacher=mlp1200 student=mlp800",
    "kdrun benchmark compare=[usual,compiled] compile=false",
    "kdrun benchmark teacher=resnet56 student=resnet8 dataset=synthetic dataset.image_size=32",
)
SWEEPS = True
TORCHRUN = False


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import execution

    return execution.run_verb("benchmark", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> BenchmarkConfig:
    """The validated dataclass of the configuration."""
    typed = parse.benchmark_config(cfg)
    rules.benchmark(typed)
    return typed


def execute(
    config: BenchmarkConfig, argv: list[str], sweep_dir: Path | None = None, job: int = 0
) -> dict[str, Any]:
    """Time the steps; returns the run's result. Sweep jobs are never reused."""
    from kdrun.benchmarking.run import run_benchmark
    from kdrun.distillation.run_identity import run_name
    from kdrun.distillation.session import open_session
    from kdrun.runs.folder import RunFolder
    from kdrun.runs.search import group_folder
    from kdrun.runs.sweeps import SweepFolder
    from kdrun.sweeps.jobs import note_run, say_job

    with open_session(config.distill.runtime) as session:
        name, data = run_name(config.distill), config.distill.dataset.name
        folder = RunFolder.new_in(group_folder(session.output_root, "benchmark", data, name))
        if sweep_dir is not None:
            say_job(session.reporter, SweepFolder(sweep_dir), job)
            note_run(SweepFolder(sweep_dir), job, folder.path)
        return run_benchmark(config, folder, session, argv)
