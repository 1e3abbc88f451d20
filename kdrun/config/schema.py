"""The typed configuration: every key with its type, range, default and help text.

The YAML groups only choose values. `kdrun.config.parse` converts composed YAML to these
dataclasses, `dump` converts back, `rules` holds the rules between settings, `options` offers the
defaults to Hydra. Fields are in the order of the written form. Imports no torch, no OmegaConf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from kdrun.config import readers
from kdrun.config.augment import AugmentConfig as AugmentConfig
from kdrun.config.augment import CropFlipConfig as CropFlipConfig
from kdrun.config.data import ALL_TRAINING_IMAGES as ALL_TRAINING_IMAGES
from kdrun.config.data import DatasetConfig as DatasetConfig
from kdrun.config.data import TransferConfig as TransferConfig
from kdrun.config.runtime import LARGEST_SWEEP as LARGEST_SWEEP
from kdrun.config.runtime import RuntimeConfig as RuntimeConfig
from kdrun.config.runtime import SearchConfig as SearchConfig
from kdrun.config.runtime import SweepConfig as SweepConfig
from kdrun.config.schedule import Precision as Precision
from kdrun.config.schedule import ScheduleConfig as ScheduleConfig
from kdrun.config.settings import required, setting
from kdrun.ranges import (
    Choices,
    Count,
    CountOrZero,
    NotNegative,
    Pixels,
    Positive,
    Range,
    Seed,
    Steps,
    Temperature,
)

T = TypeVar("T")
ValFraction = Annotated[float, Range(low=0, below=1, usual="0.1")]


@dataclass(frozen=True)
class NetworkConfig:
    """A network: the class or function that makes it, and its arguments.

    taps: extra or replaced tap names → module paths (see `kdrun.models.features.taps`).
    quantize: int8 | w4a8: it computes on the integer grids of its deployment (docs/deploy.md).
    """

    name: str = required()
    target: str = required(key="_target_")
    kwargs: dict[str, Any] = setting(dict, rest=True)
    taps: dict[str, str] = setting(dict, read=readers.taps)
    quantize: Annotated[str, Choices(("int8", "w4a8"))] | None = setting(
        None, "null | int8 | w4a8: train for 8-bit activations and 8- or 4-bit weights", quiet=True
    )


@dataclass(frozen=True)
class ReadingConfig:
    """How the tensors of a weights file become those of a network."""

    key: str | None = setting(
        None,
        "which set of weights in the file, e.g. model_ema; null: detected",
        key="checkpoint_key",
        quiet=True,
    )
    rename: dict[str, str | None] = setting(
        dict,
        "modules in the file → in the network, e.g. {linear: fc}; {head: null} leaves one out",
        quiet=True,
        read=readers.rename,
    )


@dataclass(frozen=True)
class StartConfig:
    """The weights a student starts from."""

    checkpoint: str = required(
        "initial weights: a run folder, a store entry or a file; null: drawn from seed"
    )
    reading: ReadingConfig = setting(ReadingConfig, inline=True)
    new_classifier: bool = setting(
        False, "true: load all weights except the classifier's, for other classes", quiet=True
    )


@dataclass(frozen=True)
class TeacherRuntimeConfig:
    """How a frozen teacher is run during distillation; the defaults change no result."""

    precision: Precision | None = setting(
        None, "of the teacher during distillation: fp32 | bf16 | fp16 | auto; null: the student's"
    )
    fold: bool = setting(False, "fold batch normalisation into the preceding convolutions")
    compile: bool | None = setting(None, "torch.compile for the teacher; null: as compile=...")
    cache: Annotated[str, Choices(("auto", "off", "logits", "embedding"))] = setting(
        "auto", "auto | off | logits | embedding: cache the teacher's outputs per image and view"
    )
    cache_gb: Positive = setting(4.0, "size limit of the teacher cache, in 10^9 bytes")
    cache_dtype: Annotated[str, Choices(("float16",))] | None = setting(
        None, "float16: half the cache size, outputs rounded"
    )
    check_accuracy: bool = setting(
        True, "refuse weights that miss the accuracy on their card; false: warn"
    )


@dataclass(frozen=True)
class TeacherInput:
    """Input and outputs of weights from a file without a card; None: as the data set.

    mean, std: one number holds for all channels.
    """

    mean: readers.Constants | None = setting(
        None,
        "input normalisation per channel, of pixels scaled to 0..1, e.g. [0.485,0.456,0.406]",
        quiet=True,
        read=readers.constants,
    )
    std: readers.Constants | None = setting(
        None, "standard deviation, e.g. [0.229,0.224,0.225]", quiet=True, read=readers.constants
    )
    channels: Annotated[int, Range(low=1, high=3)] | None = setting(
        None,
        "1 | 3: input channels; grey images are repeated, colour images converted (Rec. 601)",
        quiet=True,
        read=readers.channels,
    )
    classes: tuple[readers.ClassKey, ...] | None = setting(
        None,
        "its output (number or name) for each class of the data set, e.g. [0,217,482]",
        quiet=True,
        read=readers.output_classes,
    )
    class_order: str | tuple[str, ...] | None = setting(
        None,
        "order of its outputs: natural | lexicographic | [names] | file.txt",
        quiet=True,
        read=readers.class_order,
    )

    def given(self) -> list[str]:
        """The names of the settings that are set."""
        names = ("mean", "std", "channels", "classes", "class_order")
        return [name for name in names if getattr(self, name) is not None]


@dataclass(frozen=True)
class TeacherConfig:
    """A teacher: its network, and everything that shapes its training."""

    network: NetworkConfig = required(inline=True)
    schedule: ScheduleConfig = required("its training")
    seed: Seed = setting(0, "of its training; the student's seed never changes the teacher")
    checkpoint: str | None = setting(
        None, "load these weights: a run folder, a store entry or a file"
    )
    start: str | None = setting(
        None, "train from these weights: a run folder, a store entry or a file", quiet=True
    )
    new_classifier: bool = setting(
        False, "true: take all of start but the classifier, for other classes", quiet=True
    )
    reading: ReadingConfig = setting(ReadingConfig, inline=True)
    augment: AugmentConfig | None = setting(
        None, "of its training, e.g. {crop_padding: 2, flip: false}; null: the data set's"
    )
    image_size: tuple[Pixels, Pixels] | None = setting(
        None,
        "side or [height, width] of its input; null: the images' own",
        read=readers.image_size,
    )
    runtime: TeacherRuntimeConfig = setting(TeacherRuntimeConfig(), inline=True)
    input: TeacherInput = setting(TeacherInput(), inline=True)


def named_teachers(teachers: Sequence[T]) -> list[tuple[str, T]]:
    """(key, teacher): the key of one is `teacher`, of several `teacher1`, `teacher2`, ..."""
    if len(teachers) == 1:
        return [("teacher", teachers[0])]
    return [(f"teacher{number}", teacher) for number, teacher in enumerate(teachers, 1)]


@dataclass(frozen=True)
class EnsembleConfig:
    """How several teachers are combined (see `kdrun.losses.ensemble`)."""

    average: Annotated[str, Choices(("terms", "soft_targets"))] = setting(
        "terms", "several teachers: terms averages each loss, soft_targets their probabilities"
    )
    weights: list[Positive] = setting(list, "one number per teacher; null: equal weights")


# Settings of every loss, whether or not its YAML shows them.
SHARED_LOSS_SETTINGS = (
    *("warmup_epochs", "decay_epochs", "decay_after"),
    *("auto_ratio", "auto_batches", "adapter"),
)
AutoWeight = Annotated[str, Choices((readers.AUTO_WEIGHT,))]


@dataclass(frozen=True)
class LossConfig:
    """One loss of the objective: its class, its arguments, its weight."""

    id: str
    target: str = required(key="_target_")
    weight: NotNegative | AutoWeight = setting(
        1.0,
        "weight in the objective; auto: measured before the first step",
        read=readers.loss_weight,
    )
    kwargs: dict[str, Any] = setting(dict, rest=True)
    warmup_epochs: CountOrZero = setting(0, "the weight rises linearly over these epochs")
    decay_epochs: CountOrZero = setting(0, "the weight falls linearly to zero over these epochs")
    decay_after: CountOrZero = setting(
        0, "epochs before the weight falls by a cosine, to zero at the end; 0: constant", quiet=True
    )
    auto_ratio: Positive | None = setting(
        None,
        "weight=auto: gradient norm in the student, as a multiple of CE's; null: the loss's own",
        quiet=True,
    )
    auto_batches: Count = setting(
        8, "weight=auto: training batches over which the gradient norms are averaged", quiet=True
    )
    adapter: Annotated[str, Choices(("default", "orthogonal"))] | None = setting(
        None,
        "orthogonal: the projection from student to teacher keeps angles and distances",
        quiet=True,
    )

    @property
    def is_auto(self) -> bool:
        """Whether the weight is measured."""
        return self.weight == readers.AUTO_WEIGHT


# Where a scheme's teachers come from: `teacher`; none; the student trained on labels first.
USES_TEACHER = (True, False, "student")


@dataclass(frozen=True)
class RoundsConfig:
    """Several distillations in sequence; each student teaches the next one."""

    assistants: tuple[NetworkConfig, ...] = setting(
        (), "networks between teacher and student, largest first, e.g. [resnet32,resnet20]"
    )
    generations: Count = setting(1, "how many students are trained in sequence")
    keep_first: bool = setting(False, "the first teachers also teach in later generations")
    first: Annotated[str, Choices(("teacher", "labels"))] = setting(
        "teacher", "who teaches the first generation: teacher | labels"
    )

    @property
    def first_on_labels(self) -> bool:
        """Whether the first generation has no teacher."""
        return self.first == "labels"


@dataclass(frozen=True)
class SchemeConfig:
    """Who teaches whom.

    peers: networks that are trained with the student, in schemes that train several.
    rounds: of schemes that distil several times; None elsewhere.
    """

    name: str = required()
    target: str = required(key="_target_")
    kwargs: dict[str, Any] = setting(dict, rest=True)
    uses_teacher: bool | str = setting(True, quiet=True, read=readers.unchanged)
    peers: tuple[NetworkConfig, ...] = setting((), quiet=True)
    rounds: RoundsConfig | None = setting(None, inline=True)


@dataclass(frozen=True)
class LoggerConfig:
    """A tracker in addition to the files of the run folder."""

    name: str = required()
    target: str | None = setting(None, key="_target_")
    kwargs: dict[str, Any] = setting(dict, rest=True)


@dataclass(frozen=True)
class TrainTeacherConfig:
    """Everything `kdrun train-teacher` needs."""

    dataset: DatasetConfig
    teachers: tuple[TeacherConfig, ...]
    logger: LoggerConfig
    val_fraction: ValFraction = setting(0.1, "share of the training images held out; 0: none")
    runtime: RuntimeConfig = setting(RuntimeConfig(), inline=True)


@dataclass(frozen=True)
class DistillConfig:
    """Everything `kdrun distill` needs.

    teachers: none when the objective is labels only, or when the scheme has no teacher.
    augment: of the student's training images, nulls replaced by the data set's settings.
    T, alpha, ce: as given on the command line; None leaves each loss's own value.
    start: the weights the student starts from; None draws them from the seed.
    """

    dataset: DatasetConfig
    teachers: tuple[TeacherConfig, ...]
    student: NetworkConfig
    loss: dict[str, LossConfig]
    schedule: ScheduleConfig
    augment: AugmentConfig
    scheme: SchemeConfig
    logger: LoggerConfig
    T: Temperature | None = setting(None, "softmax temperature of every loss that has one")
    alpha: Annotated[float, Range(low=0, high=1)] | None = setting(
        None, "weight of the soft-target loss; hard-label CE gets 1 - alpha", read=readers.alpha
    )
    ce: NotNegative | None = setting(
        None, "weight of hard-label CE, instead of 1 - alpha", read=readers.ce_weight
    )
    seed: Seed = setting(0, "of the student: initial weights, data order, augmentation, dropout")
    val_fraction: ValFraction = setting(0.1, "share of the training images held out; 0: none")
    alone: bool = setting(True, "also train (or reuse) the baseline: the same student, labels only")
    transfer: TransferConfig = setting(ALL_TRAINING_IMAGES, "what the student is trained on")
    runtime: RuntimeConfig = setting(RuntimeConfig(), inline=True)
    ensemble: EnsembleConfig = EnsembleConfig()
    start: StartConfig | None = None

    @property
    def labels_only(self) -> bool:
        """Whether the student learns from nothing but the labels."""
        return self.scheme.uses_teacher is True and not self.teachers


@dataclass(frozen=True)
class BenchmarkConfig:
    """Everything `kdrun benchmark` needs. distill: the configuration that is measured."""

    distill: DistillConfig
    compare: list[str] = setting(
        lambda: ["usual"], "variants to compare with: see docs/performance.md", read=readers.listed
    )
    rounds: Count = setting(8, "each measures every variant once, in turned order")
    steps: Count = setting(4, "training steps of each variant per round")

    @property
    def runtime(self) -> RuntimeConfig:
        """Where and how it runs."""
        return self.distill.runtime


WhichWeights = Annotated[str, Choices(("last", "ema"))]
WHICH_WEIGHTS_HELP = "last | ema: the averaged weights, of a run with schedule.ema"


@dataclass(frozen=True)
class EvaluateConfig:
    """Everything `kdrun evaluate` needs.

    weights: which of a run's weights, `last` or `ema`.
    dataset: None measures on the run's own data set. bare: how to read a file without a card.
    """

    run: str = required("a run folder, a teacher-store entry, or a file of weights")
    weights: WhichWeights = setting("last", WHICH_WEIGHTS_HELP, quiet=True)
    dataset: DatasetConfig | None = None
    batch_size: Count = setting(128, "images per batch")
    precision: Precision = setting("fp32", "fp32 | tf32 | bf16 | fp16 | auto")
    bare: TeacherConfig | None = None
    runtime: RuntimeConfig = setting(RuntimeConfig(), inline=True)


@dataclass(frozen=True)
class ExportConfig:
    """Everything `kdrun export` needs; `weights`, `dataset`, `bare` as in `EvaluateConfig`."""

    run: str = required("a run folder, a teacher-store entry, or a file of weights")
    weights: WhichWeights = setting("last", WHICH_WEIGHTS_HELP, quiet=True)
    format: Annotated[str, Choices(("onnx", "pt2", "safetensors"))] = setting(
        "onnx", "onnx | pt2 | safetensors"
    )
    quantize: Annotated[str, Choices(("int8", "w4a8"))] | None = setting(
        None, "null | int8 | w4a8: integer weights and activations, with format=onnx"
    )
    opset: Annotated[int, Range(low=18, high=26)] | None = setting(
        None, "version of ONNX's operator set, for older runtimes; null: the exporter's", quiet=True
    )
    out: str | None = setting(None, "folder for the files; null: export/ in the run's folder")
    images: Steps | None = setting(None, "test images to check the file on; null: all")
    tolerance: Annotated[float, Range(low=0, high=100)] | None = setting(
        None, "points of top-1 that int8 may lose; null: 2"
    )
    calibration_images: Count | None = setting(
        None, "validation (or training) images to calibrate int8; null: 512"
    )
    latency: bool = setting(True, "also time teacher and student on this machine")
    batch_size: Count = setting(128, "images per batch of the check")
    dataset: DatasetConfig | None = None
    bare: TeacherConfig | None = None
    runtime: RuntimeConfig = setting(RuntimeConfig(), inline=True)
