"""From the typed configuration back to the plain form that `kdrun.config.parse` reads.

A run's `config.yaml` is written through this: every value is the effective one, and reading it
gives the same configuration again.
"""

from dataclasses import asdict
from typing import Any

from kdrun.config import schema
from kdrun.config.teacher_input import INPUT_KEYS
from kdrun.config.transfer import transfer_plain
from kdrun.config.weights import reading_plain, start_plain

# Settings of data sets that are left out while they hold their default: configurations, and the
# identity of runs, stay those of before the settings existed.
QUIET_DEFAULTS = {
    "background": "white",
    "value_range": "auto",
    "skip_broken": False,
    "train_folder": None,
    "val_folder": None,
    "test_folder": None,
    "class_order": "natural",
}
OWN_SOURCES = "kdrun.data."


def distill_plain(config: schema.DistillConfig) -> dict[str, Any]:
    """Plain containers for `parse.distill_config`."""
    schedule = _schedule(config.schedule)
    return {
        "dataset": dataset_plain(config.dataset),
        **_given_teachers(config),
        "student": {**_network(config.student), **start_plain(config.start)},
        "loss": {name: _term(term) for name, term in config.loss.items()},
        "schedule": schedule,
        "scheme": _scheme(config.scheme),
        "logger": _logger(config.logger),
        "T": config.T,
        "alpha": config.alpha,
        "ce": config.ce,
        "seed": config.seed,
        "val_fraction": config.val_fraction,
        "alone": config.alone,
        "transfer": transfer_plain(config.transfer),
        **_recipe(schedule),
        **asdict(config.runtime),
    }


def train_teacher_plain(config: schema.TrainTeacherConfig) -> dict[str, Any]:
    """Plain containers for `parse.train_teacher_config`."""
    first = config.teachers[0]
    return {
        "dataset": dataset_plain(config.dataset),
        **teachers_plain(config.teachers),
        "logger": _logger(config.logger),
        "val_fraction": config.val_fraction,
        "seed": first.seed,
        **_recipe(asdict(first.schedule)),
        **asdict(config.runtime),
    }


def evaluate_plain(config: schema.EvaluateConfig) -> dict[str, Any]:
    """Plain containers for `parse.evaluate_config`."""
    return {
        "run": config.run,
        "dataset": None if config.dataset is None else dataset_plain(config.dataset),
        "batch_size": config.batch_size,
        "precision": config.precision,
        **_weights(config.weights),
        **asdict(config.runtime),
    }


def export_plain(config: schema.ExportConfig) -> dict[str, Any]:
    """Plain containers for `parse.export_config`."""
    values = asdict(config)
    runtime = values.pop("runtime")
    del values["weights"]
    values["dataset"] = None if config.dataset is None else dataset_plain(config.dataset)
    return {**values, **_weights(config.weights), **runtime}


def _weights(config: schema.TeacherConfig | None) -> dict[str, Any]:
    """How a file without a card is read; nothing where there is none."""
    if config is None:
        return {}
    size = None if config.image_size is None else list(config.image_size)
    return {"teacher": {**_network(config.network), "image_size": size, **config.input.plain()}}


def dataset_plain(config: schema.DatasetConfig) -> dict[str, Any]:
    """Plain containers for `parse.dataset_config`."""
    values = asdict(config)
    kwargs = values.pop("kwargs")
    if config.target.startswith(OWN_SOURCES):
        kwargs = {key: value for key, value in kwargs.items() if not _is_quiet(key, value)}
    if values["duplicates"] == schema.DatasetConfig.duplicates:
        del values["duplicates"]
    return {"name": values.pop("name"), "_target_": values.pop("target"), **kwargs, **values}


def _is_quiet(key: str, value: Any) -> bool:
    return key in QUIET_DEFAULTS and QUIET_DEFAULTS[key] == value


def _network(config: schema.NetworkConfig) -> dict[str, Any]:
    return {"name": config.name, "_target_": config.target, **config.kwargs, "taps": config.taps}


def teachers_plain(
    teachers: tuple[schema.TeacherConfig, ...],
    ensemble: schema.EnsembleConfig | None = None,
) -> dict[str, Any]:
    """The nodes `teacher`, `teacher1`, `teacher2`, ...: each teacher complete in its own."""
    if not teachers:
        return {"teacher": None}
    first = _teacher(teachers[0])
    nodes = {"teacher": first if ensemble is None else {**first, **asdict(ensemble)}}
    if len(teachers) > 1:
        nodes["teacher"]["checkpoint"] = None  # one teacher's weights are not those of all
        for key in INPUT_KEYS:
            nodes["teacher"].pop(key, None)
        nodes |= {f"teacher{n}": _teacher(one) for n, one in enumerate(teachers, 1)}
    return nodes


def _teacher(config: schema.TeacherConfig) -> dict[str, Any]:
    return {
        **_network(config.network),
        "schedule": _schedule(config.schedule),
        "seed": config.seed,
        "checkpoint": config.checkpoint,
        **reading_plain(config.reading),
        "augment": None if config.augment is None else asdict(config.augment),
        "image_size": None if config.image_size is None else list(config.image_size),
        **asdict(config.runtime),
        **config.input.plain(),  # only what is set: other configurations stay the same text
    }


def _term(config: schema.LossConfig) -> dict[str, Any]:
    epochs = {"warmup_epochs": config.warmup_epochs, "decay_epochs": config.decay_epochs}
    return {"_target_": config.target, "weight": config.weight, **epochs, **config.kwargs}


def _given_teachers(config: schema.DistillConfig) -> dict[str, Any]:
    """The teachers that were chosen; one that the scheme makes itself is not written."""
    chosen = config.teachers if config.scheme.uses_teacher is True else ()
    return teachers_plain(chosen, config.ensemble)


def _scheme(config: schema.SchemeConfig) -> dict[str, Any]:
    """Without the keys that only schemes of peers and self-distillation have, where unset."""
    plain: dict[str, Any] = {"name": config.name, "_target_": config.target, **config.kwargs}
    if config.uses_teacher is not True:
        plain["uses_teacher"] = config.uses_teacher
    if config.peers:
        plain["peers"] = [_network(peer) for peer in config.peers]
    if config.rounds is not None:
        plain |= _rounds(config.rounds)
    return plain


def _rounds(config: schema.RoundsConfig) -> dict[str, Any]:
    if config.assistants:
        return {"assistants": [_network(one) for one in config.assistants]}
    return {
        "generations": config.generations,
        "keep_first": config.keep_first,
        "first": "labels" if config.first_on_labels else "teacher",
    }


def _logger(config: schema.LoggerConfig) -> dict[str, Any]:
    return {"name": config.name, "_target_": config.target, **config.kwargs}


def _schedule(config: schema.ScheduleConfig) -> dict[str, Any]:
    """Without a bound that is not set: runs of before there was one stay the same runs."""
    plain = asdict(config)
    if not config.max_norm:
        del plain["max_norm"]
    return plain


def _recipe(schedule: dict[str, Any]) -> dict[str, Any]:
    return {key: schedule[key] for key in ("epochs", "batch_size", "lr", "precision")}
