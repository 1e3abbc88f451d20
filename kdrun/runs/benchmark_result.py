"""`benchmark.json` as a type; it is also the entry `benchmark` of a run's `result.json`."""

from dataclasses import dataclass, field

from kdrun.runs.record import Count, Number, Record, Size

THIS = "this configuration"


@dataclass(frozen=True, kw_only=True)
class Spread(Record):
    """Median and quartiles over the rounds."""

    median: Number | None = None
    low: Number | None = None
    high: Number | None = None


@dataclass(frozen=True, kw_only=True)
class VariantResult(Record):
    """A timed variant of the training step.

    step_ms: milliseconds of a step. times_this: its speed over that of this configuration, paired
    by round. first_block_seconds: the first round, with warm-up and compilation.
    """

    step_ms: Spread = field(default_factory=Spread)
    images_per_second: Count | None = None
    gflops: Count | None = None
    times_this: Spread = field(default_factory=Spread)
    first_block_seconds: Count | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryResult(Record):
    """Peak memory, MiB. device_peak_mib: on a GPU only."""

    process_peak_mib: Count | None = None
    resident_images_mib: Count | None = None
    device_peak_mib: Count | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult(Record):
    """A benchmark. phases_ms: milliseconds of a step by phase; `whole` is the step."""

    rounds: Size | None = None
    steps_per_round: Size | None = None
    variants: dict[str, VariantResult] = field(default_factory=dict)
    bare_over_whole: Spread = field(default_factory=Spread)
    phases_ms: dict[str, Number] = field(default_factory=dict)
    usual_phases_ms: dict[str, Number] = field(default_factory=dict)
    peak_gflops: dict[str, Number] = field(default_factory=dict)
    memory: MemoryResult = field(default_factory=MemoryResult)

    @property
    def this(self) -> VariantResult:
        """The variant of the configuration itself; empty where it was not timed."""
        return self.variants.get(THIS, VariantResult())
