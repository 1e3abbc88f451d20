"""The typed form of a configuration: what the rest of the program receives instead of YAML.

`kdrun.config.parse` turns the composed YAML into these; `kdrun.config.validate` checks what a
type cannot say. Nothing here imports torch or OmegaConf.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from kdrun.config import kinds
from kdrun.config.sweeping import SearchConfig as SearchConfig
from kdrun.config.sweeping import SweepConfig as SweepConfig
from kdrun.config.teacher_input import AS_THE_DATA, TeacherInput
from kdrun.config.teacher_runtime import AS_IT_IS, TeacherRuntimeConfig
from kdrun.config.transfer import ALL_TRAINING_IMAGES, TransferConfig
from kdrun.config.weights import ReadingConfig, StartConfig
from kdrun.ranges import (
    Count,
    CountOrZero,
    NotNegative,
    Number,
    Pixels,
    Positive,
    Range,
    Seed,
    Share,
    Steps,
    Temperature,
)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images, drawn as integers per image and epoch.

    crop_padding: pixels of black border; the image is cropped back at a random place.
    flip: mirror left-right with probability one half.
    """

    crop_padding: Annotated[int, Range(low=0, high=65_536)] = 0
    flip: bool = False


@dataclass(frozen=True)
class DatasetConfig:
    """Where the images come from and how they are split.

    target, kwargs: the source function and its arguments (`root`, `download`, ...).
    mean, std: per channel, of pixels scaled to 0..1; None measures them on the training split.
    split_seed: chooses the validation images; separate from `seed`, so all seeds share a teacher.
    resident: auto | true | false: keep all images in memory, or stream them from disk.
    workers: loader processes when streaming.
    duplicates: what is done about the same image in two splits.
    """

    name: str
    target: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    mean: list[Number] | None = None
    std: list[Positive] | None = None
    augment: AugmentConfig = AugmentConfig()
    split_seed: Seed = 0
    resident: kinds.Resident = "auto"
    workers: kinds.Workers = 0
    duplicates: kinds.Duplicates = "warn"


@dataclass(frozen=True)
class NetworkConfig:
    """A network: the class or function that makes it, and its arguments.

    taps: extra or replaced tap names → module paths (see `kdrun.models.taps`).
    """

    name: str
    target: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    taps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleConfig:
    """How a network is trained.

    epochs, steps: the length; a set `steps` (optimiser steps) replaces `epochs`.
    curve: constant | step | linear | cosine | onecycle, the shape of the learning rate.
    milestones: with `step`: after this many epochs the rate is multiplied by `gamma`.
    warmup_epochs: linear rise from zero over this many epochs, before the curve.
    final_lr: the rate at the end of `linear`, `cosine` and `onecycle`, as a share of `lr`.
    grad_clip: largest gradient norm; 0 leaves gradients alone.
    max_norm: largest norm of the weights into a unit, kept after every step; 0 bounds nothing.
    dot_delta: with `dot`: how far the momenta of labels and teachers lie from `momentum`.
    eval_every: epochs between two measurements of the validation split.
    early_stopping: end when the validation figure has not improved for so many epochs; 0: never.
    early_stopping_metric: accuracy | loss, the figure it watches.
    """

    epochs: Count = 30
    steps: Steps | None = None
    batch_size: Count = 64
    eval_batch_size: Count = 128
    optimizer: kinds.Optimizer = "sgd"
    lr: Positive = 0.05
    momentum: Share = 0.9
    nesterov: bool = False
    dot_delta: Annotated[float, Range(low=0, high=1)] = 0.075
    betas: kinds.Betas = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: NotNegative = 5e-4
    curve: kinds.Curve = "cosine"
    milestones: list[Steps] = field(default_factory=list)
    gamma: Annotated[float, Range(above=0, high=1000)] = 0.1
    warmup_epochs: NotNegative = 0.0
    final_lr: NotNegative = 0.0
    label_smoothing: Share = 0.0
    grad_clip: NotNegative = 0.0
    max_norm: NotNegative = 0.0
    precision: kinds.Precision = "fp32"
    eval_every: Count = 1
    early_stopping: CountOrZero = 0
    early_stopping_metric: kinds.StoppingMetric = "accuracy"


@dataclass(frozen=True)
class TeacherConfig:
    """A teacher: its network, and everything that shapes its training.

    checkpoint: load these weights instead of looking in the store or training.
    reading: how the tensors of that file become the network's.
    augment: None trains it on the data set's own augmentation.
    image_size: (H, W) that it sees, where that is not the images' own; they are resized for it.
    input: constants, channels and classes of weights from a file that has no card.
    """

    network: NetworkConfig
    schedule: ScheduleConfig
    seed: Seed = 0
    checkpoint: str | None = None
    augment: AugmentConfig | None = None
    image_size: tuple[Pixels, Pixels] | None = None
    runtime: TeacherRuntimeConfig = AS_IT_IS
    input: TeacherInput = AS_THE_DATA
    reading: ReadingConfig = field(default_factory=ReadingConfig)


@dataclass(frozen=True)
class EnsembleConfig:
    """How several teachers count together (see `kdrun.losses.ensemble`).

    average: terms | soft_targets. weights: one per teacher, of any sum; empty: all count alike.
    """

    average: kinds.Average = "terms"
    weights: list[Positive] = field(default_factory=list)


@dataclass(frozen=True)
class LossConfig:
    """One loss of the objective: its class, its arguments, its weight.

    warmup_epochs: the weight rises linearly and is full in this epoch (1: from the start).
    decay_epochs: the weight falls linearly to zero over so many epochs; 0 keeps it.
    """

    id: str
    target: str
    weight: NotNegative
    kwargs: dict[str, Any] = field(default_factory=dict)
    warmup_epochs: CountOrZero = 0
    decay_epochs: CountOrZero = 0


# A scheme's teachers: those of `teacher`; nobody; the student itself, trained alone first.
USES_TEACHER = (True, False, "student")


@dataclass(frozen=True)
class RoundsConfig:
    """Several distillations, one after another, each with the student of the one before.

    assistants: networks between teacher and student, the first learns from the teacher.
    generations: how often the student is trained anew, where there are no assistants.
    keep_first: the teachers of the first round also teach in the later ones.
    first_on_labels: the first generation has no teacher.
    """

    assistants: tuple[NetworkConfig, ...] = ()
    generations: Count = 1
    keep_first: bool = False
    first_on_labels: bool = False


@dataclass(frozen=True)
class SchemeConfig:
    """Who teaches whom.

    uses_teacher: one of `USES_TEACHER`.
    peers: networks that learn beside the student, in schemes that train several.
    rounds: of schemes that distil several times; None elsewhere.
    """

    name: str
    target: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    uses_teacher: bool | str = True
    peers: tuple[NetworkConfig, ...] = ()
    rounds: RoundsConfig | None = None


@dataclass(frozen=True)
class LoggerConfig:
    """A tracker besides the files of the run folder."""

    name: str
    target: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a command runs; nothing of this changes what is learnt.

    checkpoint_minutes, checkpoint_steps: the longest a training goes on without saving its state;
    None: steps are not counted.
    """

    device: str = "auto"
    compile: bool = False
    threads: kinds.Threads | None = None
    gang: bool = False
    output_root: str = "outputs"
    ui: kinds.Interface = "auto"
    checkpoint_minutes: Positive = 5.0
    checkpoint_steps: Steps | None = None
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(frozen=True)
class TrainTeacherConfig:
    """Everything `kdrun train-teacher` needs."""

    dataset: DatasetConfig
    teachers: tuple[TeacherConfig, ...]
    val_fraction: kinds.ValFraction
    runtime: RuntimeConfig
    logger: LoggerConfig


@dataclass(frozen=True)
class DistillConfig:
    """Everything `kdrun distill` needs.

    teachers: none when the objective is labels alone, or when the scheme has no teacher.
    ensemble: how several teachers count together.
    T, alpha, ce: as given on the command line; None leaves the terms' own values.
    alone: also train (or find) the same student on labels only.
    transfer: which images and labels stage 2 sees.
    start: the weights the student starts from; None draws them from the seed.
    """

    dataset: DatasetConfig
    teachers: tuple[TeacherConfig, ...]
    student: NetworkConfig
    loss: dict[str, LossConfig]
    schedule: ScheduleConfig
    scheme: SchemeConfig
    val_fraction: kinds.ValFraction
    seed: Seed
    T: Temperature | None
    alpha: Annotated[float, Range(low=0, high=1)] | None
    ce: NotNegative | None
    alone: bool
    runtime: RuntimeConfig
    logger: LoggerConfig
    transfer: TransferConfig = ALL_TRAINING_IMAGES
    ensemble: EnsembleConfig = EnsembleConfig()
    start: StartConfig | None = None

    @property
    def labels_only(self) -> bool:
        """Whether the student learns from nothing but the labels."""
        return self.scheme.uses_teacher is True and not self.teachers


@dataclass(frozen=True)
class BenchmarkConfig:
    """Everything `kdrun benchmark` needs.

    distill: the configuration that is measured. compare: what is measured beside it.
    rounds: each measures everything once. steps: of each variant in a round.
    """

    distill: DistillConfig
    compare: list[str]
    rounds: Count
    steps: Count

    @property
    def runtime(self) -> RuntimeConfig:
        """Where and how it runs."""
        return self.distill.runtime


@dataclass(frozen=True)
class EvaluateConfig:
    """Everything `kdrun evaluate` needs. dataset: None measures on the run's own data set.

    weights: how to read a file without a card; None: a card says it.
    """

    run: str
    dataset: DatasetConfig | None
    batch_size: Count
    precision: kinds.Precision
    runtime: RuntimeConfig
    weights: TeacherConfig | None = None


@dataclass(frozen=True)
class ExportConfig:
    """Everything `kdrun export` needs. dataset: None checks on the run's own data set.

    out: None stands for `export/` in the run's folder.
    images: how many test images the file is checked on; None: all.
    tolerance: points of top-1 that int8 may lose; None: 2.
    weights: how to read a file without a card; None: a card says it.
    """

    run: str
    format: kinds.Format = "onnx"
    quantize: kinds.Quantize | None = None
    out: str | None = None
    images: Steps | None = None
    tolerance: Annotated[float, Range(low=0, high=100)] | None = None
    calibration_images: Count = 512
    latency: bool = True
    batch_size: Count = 128
    dataset: DatasetConfig | None = None
    runtime: RuntimeConfig = RuntimeConfig()
    weights: TeacherConfig | None = None
