"""Ranges and rules between settings, checked before anything is built.

Each function raises ConfigError for the first violation.
"""

import importlib.util
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from kdrun.config import schema, trust
from kdrun.config.augment_rules import augment
from kdrun.config.convert import check_ranges, shown
from kdrun.config.options import SHORT_NAMES
from kdrun.config.runtime import ONNX_RUNTIME, PYTORCH
from kdrun.errors import ConfigError, MissingExtraError, did_you_mean

MOST_NETWORKS = 1000  # trained by one run
# Variants of `kdrun benchmark`.
COMPARED = (
    "usual",
    "plain",
    "folded",
    "compiled",
    "teacher_bf16",
    "bf16",
    "remembered",
    "remembered_bf16",
)
# Optimisers that keep the gradients of labels and teachers apart.
SPLITTING = ("dot", "deepkd")
# Settings of the schedule that are also top-level names.
RECIPE = ("epochs", "batch_size", "lr", "precision")
PRUNED = "kdrun.models.pruned.pruned_network"
SHORT_KEYS = {key: name for name, key in SHORT_NAMES.items()}


def distill(config: schema.DistillConfig) -> None:
    """Check everything that `kdrun distill` was given."""
    _common(config.dataset, config.runtime)
    schedule("schedule", config.schedule, short=RECIPE)
    optimizer = config.schedule.optimizer
    if optimizer == "deepkd" and config.scheme.uses_teacher is not True:
        raise ConfigError(
            f"schedule.optimizer=deepkd needs a teacher, and scheme={config.scheme.name} has none: "
            "choose scheme=offline, or another optimizer."
        )
    if optimizer in SPLITTING and config.runtime.compile:
        raise ConfigError(
            f"compile=true frees buffers that the second backward pass of schedule.optimizer="
            f"{optimizer} reads: set compile=false, or another optimizer."
        )
    _early_stopping("schedule", config.schedule, config.val_fraction)
    augment("augment", config.augment, has_teacher=bool(config.teachers))
    _quantised(config)
    _measured_as_deployed(config)
    transfer(config.transfer, config.schedule.optimizer)
    if not config.transfer.labelled and config.scheme.uses_teacher is not True:
        raise ConfigError(
            f"The transfer set has no labels (transfer.labels=false or transfer.folder), and "
            f"scheme={config.scheme.name} has no teacher to learn from instead: choose "
            "scheme=offline, or keep the labels."
        )
    _teachers(config.teachers, config.val_fraction, config.scheme.uses_teacher == "student")
    if config.scheme.rounds is not None:
        _several_distillations(config, config.scheme.rounds)
    check_ranges(config.ensemble, "teacher")
    if config.alpha is not None and not 0 <= config.alpha <= 1:
        raise ConfigError(
            f"alpha={config.alpha:g} must lie between 0 and 1: it weighs the soft-target loss, and "
            "CE gets the rest. For other weights set ce and loss.<name>.weight."
        )
    check_ranges(config, nested=False)
    for loss in config.loss.values():
        check_ranges(loss, f"loss.{loss.id}")


def train_teacher(config: schema.TrainTeacherConfig) -> None:
    """Check everything that `kdrun train-teacher` was given."""
    _common(config.dataset, config.runtime)
    check_ranges(config, nested=False)
    schedule("teacher.schedule", config.teachers[0].schedule, short=RECIPE)
    _teachers(config.teachers, config.val_fraction)
    for teacher in config.teachers:
        check = teacher.runtime.check_accuracy
        if teacher.runtime != schema.TeacherRuntimeConfig(check_accuracy=check):
            raise ConfigError(
                "teacher.precision, fold, compile and cache say how a finished teacher is run "
                "during distillation: they belong to kdrun distill. (The precision it is trained "
                "in is precision=.)"
            )


def benchmark(config: schema.BenchmarkConfig) -> None:
    """Check everything that `kdrun benchmark` was given."""
    for name in config.compare:
        one_of("compare", name, COMPARED)
    distill(config.distill)
    check_ranges(config, nested=False)


def evaluate(config: schema.EvaluateConfig) -> None:
    """Check everything that `kdrun evaluate` was given."""
    check_ranges(config, nested=False)
    require_path("run", config.run)
    _runtime(config.runtime)
    if config.dataset is not None:
        _dataset(config.dataset)


def export(config: schema.ExportConfig) -> None:
    """Check everything that `kdrun export` was given."""
    check_ranges(config, nested=False)
    require_path("run", config.run)
    require_path("out", config.out)
    if config.quantize is not None:
        _require(
            config.format == "onnx",
            f"quantize={config.quantize} is for format=onnx; format={config.format} keeps full "
            "precision: leave quantize out.",
        )
    elif config.tolerance is not None:
        raise ConfigError(
            "tolerance is for quantize=int8; without it the file must equal the network: leave "
            "tolerance out."
        )
    elif config.calibration_images is not None:
        raise ConfigError(
            "calibration_images is for quantize=int8 or w4a8; else nothing is calibrated: leave "
            "calibration_images out."
        )
    _require(
        config.opset is None or config.format == "onnx",
        f"opset={config.opset} is for format=onnx: leave opset out.",
    )
    _require(
        config.runtime.device in ("cpu", "auto"),
        f"device={config.runtime.device}: export runs on the CPU, where the file is checked and "
        "timed: leave device out.",
    )
    _runtime(config.runtime)
    if config.dataset is not None:
        _dataset(config.dataset)


def search(config: schema.SearchConfig) -> None:
    """Check the search's own settings."""
    check_ranges(config, "search")


def schedule(where: str, config: schema.ScheduleConfig, short: Iterable[str] = ()) -> None:
    """Check one schedule; names in `short` are reported as the top-level key the user types."""

    def name(key: str) -> str:
        if short and key in SHORT_KEYS:
            return SHORT_KEYS[key]
        return key if key in short else f"{where}.{key}"

    check_ranges(config, name)
    if config.nesterov and config.momentum == 0:
        raise ConfigError(f"{name('nesterov')}=true needs {name('momentum')} above 0.")
    if config.optimizer in SPLITTING:
        _momenta(name, config)
    if config.optimizer == "lamb" and importlib.util.find_spec("timm") is None:
        raise MissingExtraError("timm", "timm", f"{name('optimizer')}=lamb")
    _milestones(name, config)
    if config.steps is None and config.freeze_epochs >= config.epochs:
        raise ConfigError(
            f"{name('freeze_epochs')}={config.freeze_epochs} freezes all but the classifier in all "
            f"of the {config.epochs} epochs: shorten one or lengthen the other."
        )
    if config.curve == "onecycle" and config.warmup_epochs:
        raise ConfigError(
            f"{name('curve')}=onecycle has its own warm-up: set {name('warmup_epochs')}=0."
        )
    if config.steps is None and config.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"{name('warmup_epochs')}={config.warmup_epochs:g} leaves nothing of the "
            f"{config.epochs} epochs of training: shorten one or lengthen the other."
        )


def transfer(config: schema.TransferConfig, optimizer: str) -> None:
    """Check the transfer set's settings."""
    check_ranges(config, "transfer")
    if config.seed != 0 and config.fraction == 1:
        raise ConfigError(
            f"transfer.seed={config.seed} draws the share transfer.fraction, which is 1: set "
            "transfer.fraction=0.1, or leave the seed out."
        )
    if config.exclude_classes and config.only_classes:
        raise ConfigError(
            "transfer.exclude_classes and transfer.only_classes say the same thing in two ways: "
            "give only one of them."
        )
    if config.folder is not None and config.by_class:
        raise ConfigError(
            "The images of transfer.folder have no labels, so no class of them can be left out: "
            "drop transfer.exclude_classes and transfer.only_classes."
        )
    if config.bias != "none" and not config.by_class:
        raise ConfigError(
            f"transfer.bias={config.bias} corrects the classes that are left out, and none is: add "
            "transfer.exclude_classes=[...] or transfer.only_classes=[...]."
        )
    if not config.labelled and optimizer in SPLITTING:
        raise ConfigError(
            f"schedule.optimizer={optimizer} keeps the gradients of labels and teachers apart, and "
            "this transfer set has no labels: choose another optimizer, e.g. sgd."
        )
    require_path("transfer.folder", config.folder)


def _measured_as_deployed(config: schema.DistillConfig) -> None:
    """Refuse the latency of a quantised student in PyTorch, which computes it in floats."""
    sweep, kind = config.runtime.sweep, config.student.quantize
    if kind is not None and sweep.measures_latency and sweep.latency_program == PYTORCH:
        raise ConfigError(
            f"The latency of a student with student.quantize={kind} is that of its integer file: "
            f"set sweep.latency_program={ONNX_RUNTIME}."
        )


def pruned_student(student: schema.NetworkConfig, scheme: schema.SchemeConfig) -> None:
    """A pruned student needs one teacher that is trained first."""
    if student.target != PRUNED:
        return
    if scheme.uses_teacher is not True or scheme.rounds is not None:
        raise ConfigError(
            f"student=pruned is cut from one trained teacher, which scheme={scheme.name} does not "
            "have: choose scheme=offline, or another student."
        )


def rounds(config: schema.RoundsConfig | None) -> None:
    """Check the number of distillations in sequence."""
    if config is None or config.assistants:
        return
    one_of("scheme.first", config.first, ("teacher", "labels"))
    network_count("scheme.generations", config.generations)
    fewest = 2 if config.first_on_labels else 1
    if config.generations < fewest:
        why = " when the first is trained on labels only" if config.first_on_labels else ""
        raise ConfigError(
            f"scheme.generations={config.generations} must be at least {fewest}{why}."
        )
    if config.keep_first and config.generations == fewest:
        raise ConfigError(
            f"scheme.keep_first=true would change nothing: with scheme.generations="
            f"{config.generations} there is one distillation. Set scheme.generations="
            f"{config.generations + 1}."
        )


def network_count(setting: str, count: int) -> None:
    """Raise ConfigError for a setting that makes one run train more networks than is allowed."""
    if count > MOST_NETWORKS:
        raise ConfigError(
            f"{setting}={count:,} makes one run train {count:,} networks; at most "
            f"{MOST_NETWORKS:,} are allowed."
        )


def teacher_constants(config: schema.TeacherInput, where: str) -> None:
    """Check that mean and std of a teacher's input belong together."""
    mean, std = config.mean, config.std
    if (mean is None) != (std is None):
        missing, given = ("std", "mean") if std is None else ("mean", "std")
        raise ConfigError(
            f"{where}.{given} is set without {where}.{missing}: give both, e.g. "
            f"'{where}.mean=[0.485,0.456,0.406]' '{where}.std=[0.229,0.224,0.225]'."
        )
    if std is not None and min(std if isinstance(std, tuple) else (std,)) <= 0:
        listed = ",".join(f"{x:g}" for x in std) if isinstance(std, tuple) else f"{std:g}"
        text = f"[{listed}]" if isinstance(std, tuple) else listed
        raise ConfigError(f"{where}.std={text} must be above 0 in every channel.")
    if isinstance(mean, tuple) and isinstance(std, tuple) and len(mean) != len(std):
        raise ConfigError(
            f"{where}.mean has {len(mean)} values and {where}.std has {len(std)}: give one per "
            "channel to both."
        )


def no_twins(teachers: tuple[schema.TeacherConfig, ...]) -> None:
    """Refuse two teachers that are the same network trained in the same way."""
    for second, teacher in enumerate(teachers):
        if teacher in teachers[:second]:
            first = teachers.index(teacher)
            raise ConfigError(
                f"Teachers {first + 1} and {second + 1} are the same: give one another seed, "
                f"teacher{second + 1}.seed=..., or make several of one network with "
                "teacher.count=2."
            )


def needs_checkpoint(reading: schema.ReadingConfig, where: str) -> None:
    """Refuse settings of a weights file where no file is named."""
    for name, value in (("checkpoint_key", reading.key), ("rename", reading.rename)):
        if value:
            raise ConfigError(
                f"{where}.{name} says how a weights file is read, and no file is named: add "
                f"{where}.checkpoint=FILE."
            )


def require_path(name: str, value: Any) -> None:
    """Raise ConfigError for a path that is set, but empty or blank."""
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f"{name}= is empty: name a file or folder, or leave it out.")


def one_of(name: str, value: Any, options: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of `options`."""
    if value not in options:
        hint = did_you_mean(str(value), options)
        raise ConfigError(f"{name}={value} is not one of {', '.join(options)}.{hint}")


def _early_stopping(where: str, config: schema.ScheduleConfig, val_fraction: float) -> None:
    if config.early_stopping and val_fraction == 0:
        raise ConfigError(
            f"{where}.early_stopping={config.early_stopping} watches the validation split, and "
            f"val_fraction=0 holds none out: set val_fraction=0.1, or {where}.early_stopping=0."
        )


def _momenta(name: Callable[[str], str], config: schema.ScheduleConfig) -> None:
    """The momenta of `dot` and `deepkd`, and settings these do not combine with."""
    if config.optimizer == "dot":
        deltas, setting = [-config.dot_delta, config.dot_delta], "dot_delta"
        value = f"{config.dot_delta:g}"
    else:
        deltas, setting = config.deepkd_deltas, "deepkd_deltas"
        value = f"[{','.join(f'{delta:g}' for delta in deltas)}]"
    momenta = [config.momentum + delta for delta in deltas]
    shown_momenta = " and ".join(f"{momentum:g}" for momentum in momenta)
    _require(
        min(momenta) >= 0 and max(momenta) < 1,
        f"{name(setting)}={value} with {name('momentum')}={config.momentum:g} gives the momenta "
        f"{shown_momenta}: all must lie in [0, 1), e.g. 0.075 with 0.9.",
    )
    for key, allowed in (("nesterov", False), ("grad_clip", 0)):
        if getattr(config, key) != allowed:
            raise ConfigError(
                f"{name('optimizer')}={config.optimizer} keeps gradients apart and takes no "
                f"{name(key)}: set {name(key)}={shown(allowed)}, or optimizer=sgd."
            )
    if config.precision == "fp16":
        raise ConfigError(
            f"{name('optimizer')}={config.optimizer} has no loss scaling: set "
            f"{name('precision')}=bf16 or fp32."
        )


def _milestones(name: Callable[[str], str], config: schema.ScheduleConfig) -> None:
    if config.curve == "step" and config.steps is None:
        _require(
            bool(config.milestones),
            f"{name('curve')}=step needs {name('milestones')}, e.g. [150,180,210].",
        )
    _require(
        all(a < b for a, b in pairwise(config.milestones)),
        f"{name('milestones')}={config.milestones} must be rising epoch numbers above 0.",
    )


def _quantised(config: schema.DistillConfig) -> None:
    """What an int8-aware student does not combine with."""
    check_ranges(config.student, "student")
    kind = config.student.quantize
    if kind is None:
        return
    if config.runtime.compile:
        raise ConfigError(
            f"student.quantize={kind} intercepts the operations of the student, which "
            "compile=true does not support: set compile=false."
        )
    if config.schedule.precision in ("bf16", "fp16"):
        raise ConfigError(
            f"student.quantize={kind} rounds the student's activations itself, from full "
            f"precision: set precision=fp32 instead of {config.schedule.precision}."
        )


def _several_distillations(config: schema.DistillConfig, several: schema.RoundsConfig) -> None:
    check_ranges(several, "scheme")
    if all(name == "ce" for name in config.loss):
        raise ConfigError(
            f"scheme={config.scheme.name} with loss=ce has no distillation loss: set one, e.g. "
            "loss=kd."
        )
    if several.keep_first and config.ensemble.weights:
        raise ConfigError(
            "teacher.weights has no number for the student that joins the teachers in "
            "scheme.keep_first=true: leave out one of the two."
        )


def _teachers(
    teachers: tuple[schema.TeacherConfig, ...], val_fraction: float, self_distilled: bool = False
) -> None:
    for where, config in schema.named_teachers(teachers):
        if config.network.quantize is not None and not self_distilled:
            raise ConfigError(
                f"{where}.quantize={config.network.quantize}: teachers run in full precision; "
                "set student.quantize instead."
            )
        schedule(f"{where}.schedule", config.schedule)
        _early_stopping(f"{where}.schedule", config.schedule, val_fraction)
        if config.augment is not None:
            augment(f"{where}.augment", config.augment, has_teacher=False)
            _require(
                config.augment.strong is None,
                f"{where}.augment.strong={config.augment.strong} is for losses that compare two "
                "views of an image, and a teacher is trained on labels: leave it out.",
            )
        check_ranges(config, where)
        require_path(f"{where}.checkpoint", config.checkpoint)
        require_path(f"{where}.start", config.start)
        _start(where, config)
        _cache(where, config.runtime)
        given = [key for key in config.input.given() if not _constants_of_start(key, config)]
        if given and config.checkpoint is None:
            settings = ", ".join(f"{where}.{key}" for key in given)
            raise ConfigError(
                f"{settings}: these describe weights from a file, and {where} is trained here, on "
                f"the data set as it is. Name the file, {where}.checkpoint=..., or leave them out."
            )


def _constants_of_start(key: str, config: schema.TeacherConfig) -> bool:
    """Whether a setting is the normalisation of a teacher that starts from weights.

    The user's own function may load them itself.
    """
    starts = config.start is not None or not trust.is_shipped(config.network.target)
    return key in ("mean", "std") and starts


def _start(where: str, config: schema.TeacherConfig) -> None:
    """The initial weights of a teacher."""
    if config.start is None:
        _require(
            not config.new_classifier,
            f"{where}.new_classifier=true needs {where}.start=FILE, the weights whose classifier "
            "is left out.",
        )
        return
    _require(
        config.checkpoint is None,
        f"{where}.checkpoint is a finished teacher and {where}.start the weights that its training "
        "starts from: set one of them.",
    )
    _require(
        config.start != "pretrained",
        f"{where}.start=pretrained: a network of torchvision or timm starts from its library's "
        f"weights with {where}.pretrained=true and without {where}.start.",
    )


def _cache(where: str, config: schema.TeacherRuntimeConfig) -> None:
    if config.cache_dtype is not None:
        _require(
            config.cache in ("logits", "embedding"),
            f"{where}.cache_dtype rounds the cached outputs, which changes results: set "
            f"{where}.cache=logits (or embedding) as well.",
        )


def _common(dataset: schema.DatasetConfig, runtime: schema.RuntimeConfig) -> None:
    _dataset(dataset)
    _runtime(runtime)


def _runtime(config: schema.RuntimeConfig) -> None:
    check_ranges(config)
    require_path("output_root", config.output_root)


def _dataset(config: schema.DatasetConfig) -> None:
    check_ranges(config, "dataset")
    for key in ("root", "path"):
        require_path(f"dataset.{key}", config.kwargs.get(key))
    if (config.mean is None) != (config.std is None):
        raise ConfigError("Set dataset.mean and dataset.std together, or neither (measured).")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
