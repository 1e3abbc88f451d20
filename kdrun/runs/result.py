"""`result.json` as a type, and the file itself: written from a run's first second on."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.files import write_json
from kdrun.limits import finite
from kdrun.runs.benchmark_result import BenchmarkResult
from kdrun.runs.record import (
    LENIENT,
    Count,
    Number,
    Percent,
    Points,
    Record,
    Seed,
    Size,
)

SCHEMA = 1
RUNNING, COMPLETED, INTERRUPTED, FAILED = "running", "completed", "interrupted", "failed"
RESUMABLE = ("distill", "train-teacher")  # of the verbs with run folders; others just run again


@dataclass(frozen=True, kw_only=True)
class Metrics(Record):
    """A network on one split. top1, top5, ece: percent. errors: wrong answers."""

    top1: Percent | None = None
    top5: Percent | None = None
    errors: Size | None = None
    loss: Number | None = None
    ece: Percent | None = None

    @property
    def complete(self) -> bool:
        """Whether every metric is there."""
        return None not in (self.top1, self.top5, self.errors, self.loss, self.ece)


@dataclass(frozen=True, kw_only=True)
class ClassErrors(Record):
    """Test images and errors of one class."""

    images: Size | None = None
    errors: Size | None = None

    @property
    def name(self) -> str:
        """The class."""
        return str(self.extra.get("class", ""))


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """What was measured on the test split.

    Data sets with metrics of their own add `test_<name>` (`test_words`). errors_per_class: where a
    transfer set leaves classes out.
    """

    test: Metrics = field(default_factory=Metrics)
    errors_per_class: tuple[ClassErrors, ...] = field(default=(), metadata=LENIENT)

    def test_entries(self) -> dict[str, Any]:
        """The entries about the test split as in `result.json`: `test`, `test_words`."""
        return {k: value for k, value in self.to_dict().items() if k.startswith("test")}

    @property
    def extra_metrics(self) -> dict[str, float]:
        """Column title → percent, of the metrics that only this data set has.

        `{"test_words": {"word_error_percent": 2.0}}` gives `{"word error %": 2.0}`.
        """
        found: dict[str, float] = {}
        for key, values in self.extra.items():
            if key.startswith("test_") and isinstance(values, dict):
                found |= percent_columns(values)
        return found

    def errors_in(self, classes: Collection[str]) -> float | None:
        """Errors in some of the classes; None where they were not counted by class."""
        if not self.errors_per_class or not classes:
            return None
        return float(sum(row.errors or 0 for row in self.errors_per_class if row.name in classes))


@dataclass(frozen=True, kw_only=True)
class BestEpoch(Measured):
    """The epoch with the highest validation accuracy. val_top1: percent."""

    epoch: Size | None = None
    val_top1: Percent | None = None


@dataclass(frozen=True, kw_only=True)
class AveragedWeights(Measured):
    """The moving average of a network's weights after the last epoch. val_top1: percent."""

    decay: Number | None = None
    val_top1: Percent | None = None

    @property
    def title(self) -> str:
        """`averaged weights (ema 0.9998)`."""
        return "averaged weights" + ("" if self.decay is None else f" (ema {self.decay:g})")


@dataclass(frozen=True, kw_only=True)
class NetworkResult(Measured):
    """A measured network. flops: of one image. test: after the last epoch.

    ema: the averaged weights, with `schedule.ema`.
    """

    name: str | None = None
    params: Size | None = None
    flops: Count | None = None
    checkpoint: str | None = None
    sha256: str | None = None
    val: Metrics = field(default_factory=Metrics)
    best_val: BestEpoch = field(default_factory=BestEpoch)
    ema: AveragedWeights = field(default_factory=AveragedWeights, metadata=LENIENT)


@dataclass(frozen=True, kw_only=True)
class TeacherResult(NetworkResult):
    """A teacher. reused: found in the store instead of trained."""

    reused: bool | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineResult(NetworkResult):
    """The same student trained on labels only (`alone`). run: its folder."""

    run: str | None = None


@dataclass(frozen=True, kw_only=True)
class CompanionResult(NetworkResult):
    """A network measured with the student: a generation, peer, branch, exit or ensemble.

    run: the folder of a generation.
    """

    network: str | None = None
    role: str | None = None
    run: str | None = field(default=None, metadata=LENIENT)


@dataclass(frozen=True, kw_only=True)
class EnsembleResult(Measured):
    """The mean answer of several networks. members: how many."""

    members: Size | None = None


@dataclass(frozen=True, kw_only=True)
class BiasCorrection(Measured):
    """The student after the bias of left-out classes was corrected."""

    shift: Number | None = None
    counted_on: str | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EarlyStop(Record):
    """Early stopping. metric: the one that did not improve, for messages."""

    epoch: Size | None = None
    epochs: Size | None = None
    not_better_since: Size | None = None
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReadoutResult(Metrics):
    """The test split by one readout of a network with several heads. params: with its heads."""

    params: Size | None = None


@dataclass(frozen=True, kw_only=True)
class StudentResult(NetworkResult):
    """The student that was distilled, or evaluated.

    heads: readout (`class`, `distillation`, `both`) → its metrics, for a network with distillation
    tokens. inference: the readout that it answers with.
    """

    inference: str | None = field(default=None, metadata=LENIENT)
    heads: dict[str, ReadoutResult] = field(default_factory=dict, metadata=LENIENT)

    stopped_early: EarlyStop = field(default_factory=EarlyStop, metadata=LENIENT)
    bias_corrected: BiasCorrection = field(default_factory=BiasCorrection, metadata=LENIENT)


@dataclass(frozen=True, kw_only=True)
class DatasetResult(Record):
    """The data. sizes: in images."""

    name: str | None = None
    num_classes: Size | None = None
    train_size: Size | None = None
    val_size: Size | None = None
    test_size: Size | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class TransferResult(Record):
    """The transfer set. size: images. train_size: those of the training split. fraction: drawn with
    `seed`. labels: whether they were used. folder: of unlabelled images. fingerprint: of all."""

    size: Size | None = None
    train_size: Size | None = None
    classes_left_out: tuple[str, ...] = ()
    fraction: Number | None = None
    seed: Seed | None = None
    labels: bool | None = None
    folder: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """How long the student's training took, in seconds, and its speed."""

    seconds: Count | None = None
    images_per_second: Count | None = None
    data_seconds: Count | None = None
    teacher_seconds: Count | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredWeight(Record):
    """The weight of a loss with `weight: auto`. gradient, ce_gradient: unweighted norms."""

    weight: Number | None = None
    ratio: Number | None = None
    batches: Size | None = None
    gradient: Number | None = None
    ce_gradient: Number | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult(Record):
    """`result.json`. What a run has not reached yet is None or empty.

    agreement: percent. gain: points. alone: the baseline. baseline: the fingerprint by which this
    run is one. round: the key by which a chain or born_again finds this run as its assistant
    or generation. run: what was evaluated. teacher_files: setting that names a teacher's file →
    SHA-256 of its weights. code: the user's own targets → digest of their code.
    """

    schema: int | None = None
    command: str | None = None
    status: str | None = None
    error: str | None = None
    identity: str | None = None
    dataset: DatasetResult = field(default_factory=DatasetResult)
    objective: str | None = None
    scheme: str | None = None
    loss: tuple[str, ...] = ()
    T: Number | None = None
    alpha: Number | None = None
    ce: Number | None = None
    seed: Seed | None = None
    epochs: Size | None = None
    device: str | None = None
    precision: str | None = None
    run: str | None = None
    teachers: tuple[TeacherResult, ...] = ()
    student: StudentResult = field(default_factory=StudentResult)
    alone: BaselineResult = field(default_factory=BaselineResult)
    agreement: Percent | None = None
    gain: Points | None = None
    time: Timing = field(default_factory=Timing)
    baseline: str | None = field(default=None, metadata=LENIENT)
    round: str | None = field(default=None, metadata=LENIENT)
    transfer: TransferResult = field(default_factory=TransferResult, metadata=LENIENT)
    teacher_ensemble: EnsembleResult = field(default_factory=EnsembleResult, metadata=LENIENT)
    generations: tuple[CompanionResult, ...] = field(default=(), metadata=LENIENT)
    ensemble_of_generations: EnsembleResult = field(
        default_factory=EnsembleResult, metadata=LENIENT
    )
    peers: tuple[CompanionResult, ...] = field(default=(), metadata=LENIENT)
    branches: tuple[CompanionResult, ...] = field(default=(), metadata=LENIENT)
    exits: tuple[CompanionResult, ...] = field(default=(), metadata=LENIENT)
    ensemble: tuple[CompanionResult, ...] = field(default=(), metadata=LENIENT)
    teacher_files: dict[str, str] = field(default_factory=dict, metadata=LENIENT)
    code: dict[str, str] = field(default_factory=dict, metadata=LENIENT)
    auto_weights: dict[str, MeasuredWeight] = field(default_factory=dict, metadata=LENIENT)
    benchmark: BenchmarkResult = field(default_factory=BenchmarkResult, metadata=LENIENT)

    @property
    def folder(self) -> Path | None:
        """The run folder, of a result that `kdrun.distill` and its like return; else None."""
        path = self.extra.get("folder")
        return Path(path) if isinstance(path, str) else None

    @property
    def trained(self) -> NetworkResult:
        """The network that this run is about: its student, or the teacher that it trained."""
        if self.command == "train-teacher" and self.teachers:
            return self.teachers[0]
        return self.student

    @property
    def complete(self) -> bool:
        """Whether it has everything that a finished `kdrun distill` writes."""
        networks = (self.student, *self.teachers)
        tests = [one.test for one in networks] + ([self.alone.test] if self.alone else [])
        return (
            all(one.name is not None and one.params is not None for one in networks)
            and all(teacher.sha256 is not None for teacher in self.teachers)
            and all(test.complete for test in tests)
            and None not in (self.objective, self.epochs, self.seed, self.device, self.precision)
        )


def percent_columns(values: dict[str, Any]) -> dict[str, float]:
    """Column title → value, of an entry of extra metrics: its keys that end in `_percent`."""
    return {
        f"{key.removesuffix('_percent').replace('_', ' ')} %": value
        for key in values
        if key.endswith("_percent") and (value := finite(values[key])) is not None
    }


def is_result(values: Any) -> bool:
    """Whether a value is a valid `result.json`."""
    try:
        return RunResult.from_dict(values).schema == SCHEMA
    except ValueError:
        return False


class ResultFile:
    """The result of one run, rewritten atomically at each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}

    def start(self, command: str, **known: Any) -> None:
        """Begin, or begin again: the run is running and has no error."""
        values = {"schema": SCHEMA, "command": command, "status": RUNNING, "error": None}
        self._write({**values, **known})

    def update(self, **values: Any) -> None:
        """Set some of the values."""
        self._write(self.values | values)

    def _write(self, values: dict[str, Any]) -> None:
        write_json(self.path, values)
        self.values = values  # only now: a failed write leaves both as they were
