"""Ranges and rules between settings: everything a type cannot say, before anything is built."""

from collections.abc import Callable, Iterable
from typing import Any

from kdrun.config import schema
from kdrun.config.transfer import validate_transfer
from kdrun.errors import ConfigError, did_you_mean

AVERAGES = ("terms", "soft_targets")
CURVES = ("constant", "step", "linear", "cosine", "onecycle")
OPTIMIZERS = ("sgd", "adam", "adamw", "dot")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
RESIDENT = ("auto", "true", "false")
FORMATS = ("onnx", "pt2", "safetensors")
QUANTIZE = ("int8",)
STOPPING_METRICS = ("accuracy", "loss")
CACHES = ("auto", "off", "logits", "embedding")
UI = ("auto", "rich", "plain", "quiet")


def validate_distill(config: schema.DistillConfig) -> None:
    """Raise ConfigError for the first thing in a `distill` configuration that cannot be."""
    _common(config.dataset, config.val_fraction, config.runtime)
    schedule("schedule", config.schedule, short=("epochs", "batch_size", "lr", "precision"))
    if config.schedule.optimizer == "dot" and config.runtime.compile:
        raise ConfigError(
            "compile=true frees buffers that the second backward pass of schedule.optimizer=dot "
            "reads: set compile=false, or another optimizer."
        )
    _stopping("schedule", config.schedule, config.val_fraction)
    validate_transfer(config.transfer, config.schedule.optimizer)
    if not config.transfer.labelled and config.scheme.uses_teacher is not True:
        raise ConfigError(
            f"The transfer set has no labels (transfer.labels=false or transfer.folder), and "
            f"scheme={config.scheme.name} has no teacher to learn from instead: choose "
            "scheme=offline, or keep the labels."
        )
    _teachers(config.teachers, config.val_fraction)
    if config.scheme.rounds is not None:
        _rounds(config, config.scheme.rounds)
    one_of("teacher.average", config.ensemble.average, AVERAGES)
    _require(
        all(weight > 0 for weight in config.ensemble.weights),
        f"teacher.weights={config.ensemble.weights} must be above 0; a teacher of no weight can be "
        "left out of the list.",
    )
    for name, value in (("T", config.T), ("alpha", config.alpha), ("ce", config.ce)):
        if value is not None:
            _objective_number(name, value)
    for term in config.loss.values():
        for key in ("weight", "warmup_epochs", "decay_epochs"):
            value = getattr(term, key)
            _require(value >= 0, f"loss.{term.id}.{key}={value:g} must not be negative.")


def validate_train_teacher(config: schema.TrainTeacherConfig) -> None:
    """Raise ConfigError for the first thing in a `train-teacher` configuration that cannot be."""
    _common(config.dataset, config.val_fraction, config.runtime)
    schedule(
        "teacher.schedule",
        config.teachers[0].schedule,
        short=("epochs", "batch_size", "lr", "precision"),
    )
    _teachers(config.teachers, config.val_fraction)
    if any(
        teacher.teaching != schema.TeachingConfig(check_accuracy=teacher.teaching.check_accuracy)
        for teacher in config.teachers
    ):
        raise ConfigError(
            "teacher.precision, fold, compile and cache say how a finished teacher is run while it "
            "teaches: they belong to kdrun distill. (The precision it is trained in is precision=.)"
        )


def validate_evaluate(config: schema.EvaluateConfig) -> None:
    """Raise ConfigError for the first thing in an `evaluate` configuration that cannot be."""
    _require(config.batch_size >= 1, f"batch_size={config.batch_size} must be at least 1.")
    one_of("precision", config.precision, PRECISIONS)
    _runtime(config.runtime)
    if config.dataset is not None:
        _dataset(config.dataset)


def validate_export(config: schema.ExportConfig) -> None:
    """Raise ConfigError for the first thing in an `export` configuration that cannot be."""
    one_of("format", config.format, FORMATS)
    if config.quantize is not None:
        one_of("quantize", config.quantize, QUANTIZE)
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
    for key in ("images", "calibration_images", "batch_size"):
        value = getattr(config, key)
        _require(value is None or value >= 1, f"{key}={value} must be at least 1.")
    _require((config.tolerance or 0) >= 0, "tolerance must not be negative.")
    _require(
        config.runtime.device in ("cpu", "auto"),
        f"device={config.runtime.device}: export works on the processor, where the file is checked "
        "and timed: leave device out.",
    )
    _runtime(config.runtime)
    if config.dataset is not None:
        _dataset(config.dataset)


def _objective_number(name: str, value: float) -> None:
    if name == "T":
        _require(value > 0, f"T={value:g} must be above 0 (usual: 1 to 20).")
    elif name == "alpha":
        _require(
            0 <= value <= 1,
            f"alpha={value:g} must lie between 0 and 1: it weighs the soft term, and CE gets the "
            "rest. For other weights set ce and loss.<term>.weight.",
        )
    else:
        _require(value >= 0, f"{name}={value:g} must not be negative.")


def schedule(where: str, config: schema.ScheduleConfig, short: Iterable[str] = ()) -> None:
    """Check one schedule; names in `short` are reported as the top-level key the user types."""

    def name(key: str) -> str:
        return key if key in short else f"{where}.{key}"

    def at_least(key: str, low: float) -> None:
        value = getattr(config, key)
        _require(value >= low, f"{name(key)}={value:g} must be at least {low:g}.")

    at_least("epochs", 1)
    at_least("batch_size", 1)
    at_least("eval_batch_size", 1)
    at_least("eval_every", 1)
    for key in ("momentum", "weight_decay", "warmup_epochs", "final_lr", "grad_clip", "max_norm"):
        at_least(key, 0)
    at_least("early_stopping", 0)
    one_of(name("early_stopping_metric"), config.early_stopping_metric, STOPPING_METRICS)
    _require(config.steps is None or config.steps >= 1, f"{name('steps')} must be at least 1.")
    _require(config.lr > 0, f"{name('lr')}={config.lr:g} must be above 0.")
    _require(config.gamma > 0, f"{name('gamma')}={config.gamma:g} must be above 0.")
    _require(
        0 <= config.label_smoothing < 1,
        f"{name('label_smoothing')}={config.label_smoothing:g} must lie in [0, 1).",
    )
    one_of(name("optimizer"), config.optimizer, OPTIMIZERS)
    one_of(name("curve"), config.curve, CURVES)
    one_of(name("precision"), config.precision, PRECISIONS)
    if config.nesterov and config.momentum == 0:
        raise ConfigError(f"{name('nesterov')}=true needs {name('momentum')} above 0.")
    if config.optimizer == "dot":
        _dot(name, config)
    _milestones(name, config)
    if config.curve == "onecycle" and config.warmup_epochs:
        raise ConfigError(
            f"{name('curve')}=onecycle has its own rise: set {name('warmup_epochs')}=0."
        )
    if config.steps is None and config.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"{name('warmup_epochs')}={config.warmup_epochs:g} leaves nothing of the "
            f"{config.epochs} epochs of training: shorten one or lengthen the other."
        )


def _stopping(where: str, config: schema.ScheduleConfig, val_fraction: float) -> None:
    """Early stopping looks at the validation split."""
    if config.early_stopping and val_fraction == 0:
        raise ConfigError(
            f"{where}.early_stopping={config.early_stopping} watches the validation split, and "
            f"val_fraction=0 holds none out: set val_fraction=0.1, or {where}.early_stopping=0."
        )


def _dot(name: Callable[[str], str], config: schema.ScheduleConfig) -> None:
    """What the two momenta of `dot` need, and what they do not go together with."""
    low, high = config.momentum - config.dot_delta, config.momentum + config.dot_delta
    _require(
        config.dot_delta >= 0 and low >= 0 and high < 1,
        f"{name('dot_delta')}={config.dot_delta:g} with {name('momentum')}={config.momentum:g} "
        f"gives the momenta {low:g} and {high:g}: both must lie in [0, 1), e.g. 0.075 with 0.9.",
    )
    for key, allowed in (("nesterov", False), ("grad_clip", 0)):
        if getattr(config, key) != allowed:
            raise ConfigError(
                f"{name('optimizer')}=dot keeps two gradients apart and takes no "
                f"{name(key)}: set {name(key)}={str(allowed).lower()}, or optimizer=sgd."
            )
    if config.precision == "fp16":
        raise ConfigError(
            f"{name('optimizer')}=dot has no loss scaling: set {name('precision')}=bf16 or fp32."
        )


def _milestones(name: Callable[[str], str], config: schema.ScheduleConfig) -> None:
    if config.curve == "step" and config.steps is None:
        _require(
            bool(config.milestones),
            f"{name('curve')}=step needs {name('milestones')}, e.g. [150,180,210].",
        )
    _require(
        all(
            b > a > 0 for a, b in zip([*config.milestones[:-1]], config.milestones[1:], strict=True)
        )
        and all(m > 0 for m in config.milestones),
        f"{name('milestones')}={config.milestones} must be rising epoch numbers above 0.",
    )


def _rounds(config: schema.DistillConfig, rounds: schema.RoundsConfig) -> None:
    """Several rounds of distillation have something to distil, and weights a meaning."""
    name = config.scheme.name
    if all(term == "ce" for term in config.loss):
        raise ConfigError(f"scheme={name} with loss=ce distils nothing: choose a loss, loss=kd.")
    if rounds.keep_first and config.ensemble.weights:
        raise ConfigError(
            "teacher.weights has no number for the student that joins the teachers in "
            "scheme.keep_first=true: leave out one of the two."
        )


def _teachers(teachers: tuple[schema.TeacherConfig, ...], val_fraction: float) -> None:
    for number, config in enumerate(teachers, 1):
        where = "teacher" if len(teachers) == 1 else f"teacher{number}"
        schedule(f"{where}.schedule", config.schedule)
        _stopping(f"{where}.schedule", config.schedule, val_fraction)
        if config.augment is not None:
            _augment(f"{where}.augment", config.augment)
        _teaching(where, config.teaching)
        _input(where, config)


def _input(where: str, config: schema.TeacherConfig) -> None:
    """Constants and classes describe weights that come from elsewhere."""
    given = config.input.given()
    if given and config.checkpoint is None:
        settings = ", ".join(f"{where}.{key}" for key in given)
        raise ConfigError(
            f"{settings}: these describe weights from a file, and {where} is trained here, on the "
            f"data set as it is. Name the file, {where}.checkpoint=..., or leave them out."
        )


def _teaching(where: str, config: schema.TeachingConfig) -> None:
    if config.precision is not None:
        one_of(f"{where}.precision", config.precision, PRECISIONS)
    one_of(f"{where}.cache", config.cache, CACHES)
    if config.cache_dtype is not None:
        one_of(f"{where}.cache_dtype", config.cache_dtype, ("float16",))
        _require(
            config.cache in ("logits", "embedding"),
            f"{where}.cache_dtype rounds what is remembered, which changes results: set "
            f"{where}.cache=logits (or embedding) as well.",
        )
    _require(config.cache_gb > 0, f"{where}.cache_gb={config.cache_gb:g} must be above 0.")


def _common(
    dataset: schema.DatasetConfig, val_fraction: float, runtime: schema.RuntimeConfig
) -> None:
    _dataset(dataset)
    _require(0 <= val_fraction < 1, f"val_fraction={val_fraction:g} must lie in [0, 1), e.g. 0.1.")
    _runtime(runtime)


def _runtime(config: schema.RuntimeConfig) -> None:
    one_of("ui", config.ui, UI)
    _require(
        config.threads is None or config.threads >= 1,
        f"threads={config.threads} must be at least 1, or null for all.",
    )
    _require(config.checkpoint_minutes > 0, "checkpoint_minutes must be above 0.")
    _require(
        config.checkpoint_steps is None or config.checkpoint_steps >= 1,
        f"checkpoint_steps={config.checkpoint_steps} must be at least 1, or null.",
    )
    minutes = config.sweep.job_minutes
    _require(
        minutes is None or minutes > 0,
        f"sweep.job_minutes={minutes} must be above 0, or null for no limit.",
    )


def _dataset(config: schema.DatasetConfig) -> None:
    one_of("dataset.resident", config.resident, RESIDENT)
    _require(config.workers >= 0, f"dataset.workers={config.workers} must not be negative.")
    _augment("dataset.augment", config.augment)
    if (config.mean is None) != (config.std is None):
        raise ConfigError("Set dataset.mean and dataset.std together, or neither (measured).")
    if config.std is not None and min(config.std) <= 0:
        raise ConfigError(f"dataset.std={config.std} must be above 0 in every channel.")


def _augment(where: str, config: schema.AugmentConfig) -> None:
    _require(
        config.crop_padding >= 0,
        f"{where}.crop_padding={config.crop_padding} must not be negative.",
    )


def one_of(name: str, value: Any, options: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of `options`."""
    if value not in options:
        hint = did_you_mean(str(value), options)
        raise ConfigError(f"{name}={value} is not one of {', '.join(options)}.{hint}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
