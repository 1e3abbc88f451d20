"""From composed YAML to the dataclasses of `kdrun.config.schema`, with types checked.

Free-form nodes (`dataset`, `student`, `teacher`, `loss.*`) carry their own arguments beside a few
reserved keys; the reserved keys become fields, everything else becomes `kwargs` of `_target_`.
"""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
)

from kdrun.config import schema
from kdrun.config.class_file import class_order_setting
from kdrun.config.data_places import place_name, require_text
from kdrun.config.plain import require_plain
from kdrun.config.scalars import boolean, integer, number, optional_number, text
from kdrun.config.schemes import ROUND_KEYS, STUDENT, peers, rounds, uses_teacher
from kdrun.config.sizes import image_size
from kdrun.config.teacher_input import teacher_input
from kdrun.config.teachers import OWN_KEYS, TEACHING_KEYS, refuse_twins, teacher_nodes
from kdrun.config.transfer import transfer_config
from kdrun.config.values import first_line, typed
from kdrun.config.weights import (
    START_KEYS,
    reading_config,
    require_checkpoint,
    start_config,
)
from kdrun.errors import ConfigError
from kdrun.ranges import check_settings

GROUPS = ("dataset", "teacher", "student", "schedule", "scheme", "logger", "sweep", "search")
# Arguments that networks got after runs and teachers had been made without them: left out while
# they hold these values, so that configurations and fingerprints stay what they were.
LATER_ARGUMENTS = {"kdrun.models.resnet.ResNet": {"shortcut": "projection"}}
# How a term's weight follows the epoch.
EPOCH_KEYS = ("warmup_epochs", "decay_epochs")


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Plain containers with every interpolation resolved and every `???` filled in."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or str(error).split(": ")[-1].strip()
        raise ConfigError(f"{key} has no value: add {key}=... to the command.") from None
    except InterpolationResolutionError as error:
        raise ConfigError(f"The configuration cannot be resolved: {first_line(error)}") from None
    assert isinstance(plain, dict)
    require_plain(plain)
    for name in GROUPS:
        if not isinstance(plain.get(name, {}), dict | None):
            raise ConfigError(f"{name} must be a group of settings, and is {plain[name]!r:.60}.")
    return {str(key): value for key, value in plain.items()}


def train_teacher_config(cfg: DictConfig) -> schema.TrainTeacherConfig:
    """The typed configuration of `kdrun train-teacher`."""
    plain = resolve(cfg)
    _set_recipe(plain, plain["teacher"]["schedule"])
    plain["teacher"]["seed"] = plain["seed"]
    return schema.TrainTeacherConfig(
        dataset=dataset_config(plain["dataset"]),
        teachers=_chosen_teachers(plain),
        val_fraction=number(plain, "val_fraction"),
        runtime=_runtime(plain),
        logger=_logger(plain["logger"]),
    )


def distill_config(cfg: DictConfig) -> schema.DistillConfig:
    """The typed configuration of `kdrun distill`."""
    plain = resolve(cfg)
    _set_recipe(plain, plain["schedule"])
    loss = _loss(plain.get("loss"))
    student, start = _student(plain["student"])
    schedule = typed(schema.ScheduleConfig, plain["schedule"], "schedule")
    scheme = _scheme(plain["scheme"], student)
    teachers = _teachers(plain, loss, scheme, student, schedule)
    chosen = teachers and scheme.uses_teacher is True
    return schema.DistillConfig(
        dataset=dataset_config(plain["dataset"]),
        teachers=teachers,
        student=student,
        loss=loss,
        schedule=schedule,
        scheme=scheme,
        val_fraction=number(plain, "val_fraction"),
        seed=integer(plain, "seed"),
        T=optional_number(plain, "T"),
        alpha=optional_number(plain, "alpha"),
        ce=optional_number(plain, "ce"),
        alone=boolean(plain, "alone"),
        transfer=transfer_config(plain.get("transfer")),
        runtime=_runtime(plain),
        logger=_logger(plain["logger"]),
        ensemble=_ensemble(plain["teacher"]) if chosen else schema.EnsembleConfig(),
        start=start,
    )


def search_config(cfg: DictConfig) -> schema.SearchConfig:
    """The search's own part of the configuration of `kdrun search`."""
    found = typed(schema.SearchConfig, resolve(cfg.search), "search")
    check_settings(found, lambda key: f"search.{key}")
    return found


def evaluate_config(cfg: DictConfig) -> schema.EvaluateConfig:
    """The typed configuration of `kdrun evaluate`."""
    plain = resolve(cfg)
    dataset = plain.get("dataset")
    return schema.EvaluateConfig(
        run=str(plain["run"]),
        dataset=dataset_config(dataset) if dataset else None,
        batch_size=integer(plain, "batch_size"),
        precision=str(plain["precision"]),
        runtime=_runtime(plain),
        weights=_weights_of_run(plain),
    )


def export_config(cfg: DictConfig) -> schema.ExportConfig:
    """The typed configuration of `kdrun export`."""
    plain = resolve(cfg)
    dataset = plain.get("dataset")
    names = {field.name for field in dataclasses.fields(schema.ExportConfig)}
    own = {key: plain[key] for key in sorted(names - {"dataset", "runtime", "weights"})}
    return dataclasses.replace(
        typed(schema.ExportConfig, own, ""),
        dataset=dataset_config(dataset) if dataset else None,
        runtime=_runtime(plain),
        weights=_weights_of_run(plain),
    )


def _weights_of_run(plain: dict[str, Any]) -> schema.TeacherConfig | None:
    """How to read `run=FILE`, where `teacher=...` says which network its weights are of."""
    node = plain.get("teacher") or {}
    if "_target_" not in node:
        given = [f"teacher.{key}" for key, value in node.items() if value is not None]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: which network the weights of run={plain['run']} are of is "
                "not said: add teacher=..., e.g. teacher=resnet56."
            )
        return None
    if not plain.get("dataset"):
        raise ConfigError(
            f"teacher= is for weights without a card, and these name no data set: add dataset=... "
            f"to read run={plain['run']}."
        )
    return _teacher({**node, "checkpoint": plain["run"]}, "teacher")


def _set_recipe(plain: dict[str, Any], schedule: dict[str, Any]) -> None:
    """Write the top-level recipe (`epochs=5`) into the schedule it stands for.

    The types are checked here, under the name the user typed.
    """
    for key, check in (
        ("epochs", integer),
        ("batch_size", integer),
        ("lr", number),
        ("precision", text),
    ):
        schedule[key] = check(plain, key)


def _split(node: dict[str, Any], reserved: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(reserved keys, the target's own arguments)."""
    own = {k: v for k, v in node.items() if k not in reserved and k != "_target_"}
    return {k: v for k, v in node.items() if k in reserved}, own


def dataset_config(node: dict[str, Any]) -> schema.DatasetConfig:
    """The typed configuration of a `dataset` node."""
    reserved_names = {f.name for f in dataclasses.fields(schema.DatasetConfig)}
    reserved, kwargs = _split(node, reserved_names - {"target", "kwargs"})
    if kwargs.get("num_classes") is None:
        kwargs.pop("num_classes", None)
    reserved["resident"] = str(reserved.get("resident", "auto")).lower()
    require_text(kwargs)
    if reserved.get("name") is None:
        reserved["name"] = place_name(kwargs)
    augment = typed(schema.AugmentConfig, reserved.pop("augment", None) or {}, "dataset.augment")
    target = _target(node, "dataset")
    if "class_order" in kwargs and target.startswith("kdrun.data."):
        kwargs["class_order"] = class_order_setting(kwargs["class_order"])
    base = typed(schema.DatasetConfig, {**reserved, "target": target}, "dataset")
    return dataclasses.replace(base, augment=augment, kwargs=kwargs)


def _network(node: dict[str, Any], where: str) -> schema.NetworkConfig:
    reserved, kwargs = _split(node, {"name", "taps"})
    target = _target(node, where)
    later = LATER_ARGUMENTS.get(target, {})
    kwargs = {key: value for key, value in kwargs.items() if (key, value) not in later.items()}
    name = str(reserved.get("name") or target.rsplit(".", 1)[-1])
    taps = {str(k): str(v) for k, v in (reserved.get("taps") or {}).items()}
    return schema.NetworkConfig(name=name, target=target, kwargs=kwargs, taps=taps)


def _student(node: dict[str, Any]) -> tuple[schema.NetworkConfig, schema.StartConfig | None]:
    reserved, rest = _split(node, set(START_KEYS))
    network = _network({**rest, "_target_": node.get("_target_")}, "student")
    return network, start_config(reserved)


def _chosen_teachers(plain: dict[str, Any]) -> tuple[schema.TeacherConfig, ...]:
    """All teachers that `teacher`, `teacher1`, `teacher2`, ... describe."""
    teachers = tuple(_teacher(node, where) for where, node in teacher_nodes(plain))
    refuse_twins(teachers)
    if all(teacher.checkpoint is None for teacher in teachers):
        for teacher in teachers:
            require_checkpoint(teacher.reading, "teacher")
    return teachers


def _teacher(node: dict[str, Any], where: str) -> schema.TeacherConfig:
    reserved, rest = _split(node, {*OWN_KEYS, *TEACHING_KEYS})
    runtime = {key: value for key, value in reserved.items() if key in TEACHING_KEYS}
    network = _network({**rest, "_target_": node.get("_target_")}, where)
    augment = reserved.get("augment")
    checkpoint = reserved.get("checkpoint")
    schedule = reserved.get("schedule") or {}
    if not isinstance(schedule, dict):
        raise ConfigError(
            f"{where}.schedule is a group of settings: to choose one, type "
            f"schedule@{where}.schedule={schedule}."
        )
    return schema.TeacherConfig(
        network=network,
        schedule=typed(schema.ScheduleConfig, schedule, f"{where}.schedule"),
        seed=integer({f"{where}.seed": reserved.get("seed", 0)}, f"{where}.seed"),
        checkpoint=None if checkpoint is None else str(checkpoint),
        augment=None
        if augment is None
        else typed(schema.AugmentConfig, augment, f"{where}.augment"),
        image_size=image_size(reserved.get("image_size"), f"{where}.image_size"),
        runtime=typed(schema.TeacherRuntimeConfig, runtime, where),
        input=teacher_input(reserved, where),
        reading=reading_config(reserved, where),
    )


def _teachers(
    plain: dict[str, Any],
    loss: dict[str, schema.LossConfig],
    scheme: schema.SchemeConfig,
    student: schema.NetworkConfig,
    schedule: schema.ScheduleConfig,
) -> tuple[schema.TeacherConfig, ...]:
    """The teachers that the scheme and the objective ask for."""
    if scheme.uses_teacher is False or all(term == "ce" for term in loss):
        return ()
    if scheme.uses_teacher == "student":
        return (schema.TeacherConfig(student, schedule, integer(plain, "seed")),)
    return _chosen_teachers(plain)


def _ensemble(node: dict[str, Any]) -> schema.EnsembleConfig:
    given = {key: node[key] for key in ("average", "weights") if node.get(key) is not None}
    return typed(schema.EnsembleConfig, given, "teacher")


def _loss(node: Any) -> dict[str, schema.LossConfig]:
    if not isinstance(node, dict) or not node:
        raise ConfigError("The objective is empty: choose a loss, e.g. loss=kd or 'loss=[kd,sp]'.")
    terms = {}
    for term_id, term in node.items():
        where = f"loss.{term_id}"
        if not isinstance(term, dict):
            raise ConfigError(f"{where} must be a group of settings with a _target_.")
        if "_target_" not in term:  # a scheme's settings for a term that was not chosen
            continue
        reserved, kwargs = _split(term, {"weight", *EPOCH_KEYS})
        weight = number({f"{where}.weight": reserved.get("weight", 1.0)}, f"{where}.weight")
        epochs = {
            key: integer({f"{where}.{key}": reserved.get(key, 0)}, f"{where}.{key}")
            for key in EPOCH_KEYS
        }
        target = _target(term, where)
        terms[str(term_id)] = schema.LossConfig(str(term_id), target, weight, kwargs, **epochs)
    return terms


def _scheme(node: dict[str, Any], student: schema.NetworkConfig) -> schema.SchemeConfig:
    reserved, kwargs = _split(node, {"name", "uses_teacher", "peers", *ROUND_KEYS})
    several = rounds(reserved, _network)
    uses = uses_teacher(reserved.get("uses_teacher", True), kwargs.get("variant"))
    if several is not None and several.first_on_labels:
        uses = STUDENT
    return schema.SchemeConfig(
        name=_name(reserved, "scheme"),
        target=_target(node, "scheme"),
        kwargs=kwargs,
        uses_teacher=uses,
        peers=peers(reserved.get("peers"), student, _network),
        rounds=several,
    )


def _name(reserved: dict[str, Any], group: str) -> str:
    name = reserved.get("name")
    if name is None:
        raise ConfigError(f"The {group}'s YAML has no name: add the line 'name: ...' to it.")
    return str(name)


def _logger(node: dict[str, Any]) -> schema.LoggerConfig:
    reserved, kwargs = _split(node, {"name"})
    return schema.LoggerConfig(_name(reserved, "logger"), node.get("_target_"), kwargs)


def _runtime(plain: dict[str, Any]) -> schema.RuntimeConfig:
    names = [f.name for f in dataclasses.fields(schema.RuntimeConfig) if f.name != "sweep"]
    runtime = typed(schema.RuntimeConfig, {name: plain[name] for name in names}, "")
    sweep = typed(schema.SweepConfig, plain.get("sweep") or {}, "sweep")
    return dataclasses.replace(runtime, sweep=sweep)


def _target(node: dict[str, Any], where: str) -> str:
    target = node.get("_target_")
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(
            f"{where}._target_ must be the dotted path of a class or function, "
            f"e.g. {where}._target_=mypackage.MyClass."
        )
    return target
