"""The part of the schema that changes no result: where and how commands run, sweeps, searches."""

from dataclasses import dataclass
from typing import Annotated

from kdrun.config import readers
from kdrun.config.settings import setting
from kdrun.ranges import Choices, Positive, Range, Seed, Steps

LARGEST_SWEEP = 10_000  # jobs of a sweep, trials of a search
# More threads than any machine has make OpenMP crash while it starts them.
Threads = Annotated[int, Range(low=1, high=1024)]
Limit = Annotated[float, Range(above=0, high=1e18)]
LIMITS = ("max_flops", "max_bytes", "max_latency_ms")  # of SweepConfig
PYTORCH, ONNX_RUNTIME = "pytorch", "onnxruntime"


@dataclass(frozen=True)
class SweepConfig:
    """How the jobs of a sweep are treated, and the budget of its students."""

    fail_fast: bool = setting(False, "start no further jobs after a failure")
    job_minutes: Positive | None = setting(None, "time limit per job; null: none")
    max_bytes: Limit | None = setting(
        None, "skip students whose weights take more bytes; null: no limit", quiet=True
    )
    max_flops: Limit | None = setting(
        None, "skip students with more FLOPs per image; null: no limit", quiet=True
    )
    max_latency_ms: Limit | None = setting(
        None, "skip students with a longer median latency on this CPU; null: no limit", quiet=True
    )
    latency: bool = setting(
        False, "measure the latency of students and teachers, without a limit", quiet=True
    )
    latency_batch: Annotated[int, Range(low=1, high=100_000)] = setting(
        1, "images per call when latency is measured", quiet=True
    )
    latency_program: Annotated[str, Choices((PYTORCH, ONNX_RUNTIME))] = setting(
        PYTORCH, "pytorch | onnxruntime: what runs the network when latency is measured", quiet=True
    )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        return {key: value for key in LIMITS if (value := getattr(self, key)) is not None}

    @property
    def has_budget(self) -> bool:
        """Whether students are measured before they are trained."""
        return self.measures_latency or bool(self.limits)

    @property
    def measures_latency(self) -> bool:
        """Whether the latency of students and teachers is measured."""
        return self.latency or self.max_latency_ms is not None


@dataclass(frozen=True)
class SearchConfig:
    """How `kdrun search` searches. space: name → list or range, as typed after `name=`."""

    trials: Annotated[int, Range(low=1, high=LARGEST_SWEEP)] = setting(20, "settings to try")
    seed: Seed = setting(0, "of the sampler")
    space: dict[str, str] = setting(dict, "name → range, as on the command line")


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a command runs; nothing here changes what is learnt."""

    device: str = setting("auto", "auto | cpu | cuda | cuda:N | mps", read=readers.device)
    compile: bool = setting(False, "torch.compile for the networks")
    threads: Threads | None = setting(None, "CPU threads; null: as many as the machine has")
    deterministic: bool = setting(
        False, "only deterministic kernels: equal runs have equal bits on a GPU too", quiet=True
    )
    gang: bool = setting(
        False, "run jobs that share data and teacher in lockstep (pip install 'kdrun[lockstep]')"
    )
    output_root: str = setting("outputs", "folder of runs, teacher store and caches")
    ui: Annotated[str, Choices(("auto", "rich", "plain", "quiet"))] = setting(
        "auto", "auto | rich | plain | quiet"
    )
    checkpoint_minutes: Positive = setting(5.0, "longest time between two checkpoints")
    checkpoint_steps: Steps | None = setting(None, "also save every N steps; null: by time only")
    sweep: SweepConfig = setting(SweepConfig())
