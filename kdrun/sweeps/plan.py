"""The jobs of a sweep: typed configurations, the commands that repeat them, the launcher."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdrun.config.schema import (
    BenchmarkConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    TrainTeacherConfig,
)
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps.launchers import Launcher

Config = TrainTeacherConfig | DistillConfig | EvaluateConfig | ExportConfig | BenchmarkConfig


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep runs. command: what to type after `kdrun` to repeat all of it.

    configs: one for each job. argvs: for each, what to type after `kdrun` to run it alone.
    """

    folder: SweepFolder
    command: list[str]
    configs: Sequence[Config]
    argvs: list[list[str]]
    launcher: Launcher
