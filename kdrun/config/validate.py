"""Ranges and rules between settings: everything a type cannot say, before anything is built."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from kdrun.config import schema
from kdrun.config.transfer import validate_transfer
from kdrun.errors import ConfigError, did_you_mean
from kdrun.ranges import check_settings


def validate_distill(config: schema.DistillConfig) -> None:
    """Raise ConfigError for the first thing in a `distill` configuration that cannot be."""
    _common(config.dataset, config.runtime)
    schedule("schedule", config.schedule, short=("epochs", "batch_size", "lr", "precision"))
    if config.schedule.optimizer == "dot" and config.runtime.compile:
        raise ConfigError(
            "compile=true frees buffers that the second backward pass of schedule.optimizer=dot "
            "reads: set compile=false, or another optimizer."
        )
    _stopping("schedule", config.schedule, config.val_fraction)
    validate_transfer(config.transfer, config.schedule.optimizer)
    require_path("transfer.folder", config.transfer.folder)
    if not config.transfer.labelled and config.scheme.uses_teacher is not True:
        raise ConfigError(
            f"The transfer set has no labels (transfer.labels=false or transfer.folder), and "
            f"scheme={config.scheme.name} has no teacher to learn from instead: choose "
            "scheme=offline, or keep the labels."
        )
    _teachers(config.teachers, config.val_fraction)
    if config.scheme.rounds is not None:
        _rounds(config, config.scheme.rounds)
    check_settings(config.ensemble, lambda key: f"teacher.{key}")
    if config.alpha is not None and not 0 <= config.alpha <= 1:
        raise ConfigError(
            f"alpha={config.alpha:g} must lie between 0 and 1: it weighs the soft term, and CE "
            "gets the rest. For other weights set ce and loss.<term>.weight."
        )
    check_settings(config, str)
    for term in config.loss.values():
        check_settings(term, lambda key, term=term: f"loss.{term.id}.{key}")  # type: ignore[misc]


def validate_train_teacher(config: schema.TrainTeacherConfig) -> None:
    """Raise ConfigError for the first thing in a `train-teacher` configuration that cannot be."""
    _common(config.dataset, config.runtime)
    check_settings(config, str)
    schedule(
        "teacher.schedule",
        config.teachers[0].schedule,
        short=("epochs", "batch_size", "lr", "precision"),
    )
    _teachers(config.teachers, config.val_fraction)
    if any(
        teacher.runtime
        != schema.TeacherRuntimeConfig(check_accuracy=teacher.runtime.check_accuracy)
        for teacher in config.teachers
    ):
        raise ConfigError(
            "teacher.precision, fold, compile and cache say how a finished teacher is run while it "
            "teaches: they belong to kdrun distill. (The precision it is trained in is precision=.)"
        )


def validate_evaluate(config: schema.EvaluateConfig) -> None:
    """Raise ConfigError for the first thing in an `evaluate` configuration that cannot be."""
    check_settings(config, str)
    require_path("run", config.run)
    _runtime(config.runtime)
    if config.dataset is not None:
        _dataset(config.dataset)


def validate_export(config: schema.ExportConfig) -> None:
    """Raise ConfigError for the first thing in an `export` configuration that cannot be."""
    check_settings(config, str)
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
    _require(
        config.runtime.device in ("cpu", "auto"),
        f"device={config.runtime.device}: export works on the processor, where the file is checked "
        "and timed: leave device out.",
    )
    _runtime(config.runtime)
    if config.dataset is not None:
        _dataset(config.dataset)


def schedule(where: str, config: schema.ScheduleConfig, short: Iterable[str] = ()) -> None:
    """Check one schedule; names in `short` are reported as the top-level key the user types."""

    def name(key: str) -> str:
        return key if key in short else f"{where}.{key}"

    check_settings(config, name)
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
        low >= 0 and high < 1,
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
        all(a < b for a, b in pairwise(config.milestones)),
        f"{name('milestones')}={config.milestones} must be rising epoch numbers above 0.",
    )


def _rounds(config: schema.DistillConfig, rounds: schema.RoundsConfig) -> None:
    """Several rounds of distillation have something to distil, and weights a meaning."""
    name = config.scheme.name
    check_settings(rounds, lambda key: f"scheme.{key}")
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
        check_settings(config, lambda key, where=where: f"{where}.{key}")  # type: ignore[misc]
        require_path(f"{where}.checkpoint", config.checkpoint)
        if config.augment is not None:
            _augment(f"{where}.augment", config.augment)
        _teacher_runtime(where, config.runtime)
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


def _teacher_runtime(where: str, config: schema.TeacherRuntimeConfig) -> None:
    check_settings(config, lambda key: f"{where}.{key}")
    if config.cache_dtype is not None:
        _require(
            config.cache in ("logits", "embedding"),
            f"{where}.cache_dtype rounds what is remembered, which changes results: set "
            f"{where}.cache=logits (or embedding) as well.",
        )


def _common(dataset: schema.DatasetConfig, runtime: schema.RuntimeConfig) -> None:
    _dataset(dataset)
    _runtime(runtime)


def _runtime(config: schema.RuntimeConfig) -> None:
    check_settings(config, str)
    check_settings(config.sweep, lambda key: f"sweep.{key}")
    require_path("output_root", config.output_root)


def _dataset(config: schema.DatasetConfig) -> None:
    check_settings(config, lambda key: f"dataset.{key}")
    for key in ("root", "path"):
        require_path(f"dataset.{key}", config.kwargs.get(key))
    _augment("dataset.augment", config.augment)
    if (config.mean is None) != (config.std is None):
        raise ConfigError("Set dataset.mean and dataset.std together, or neither (measured).")


def require_path(name: str, value: Any) -> None:
    """Raise ConfigError for a path that is set, but empty or blank."""
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f"{name}= is empty: name a file or folder, or leave it out.")


def _augment(where: str, config: schema.AugmentConfig) -> None:
    check_settings(config, lambda key: f"{where}.{key}")


def one_of(name: str, value: Any, options: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of `options`."""
    if value not in options:
        hint = did_you_mean(str(value), options)
        raise ConfigError(f"{name}={value} is not one of {', '.join(options)}.{hint}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
