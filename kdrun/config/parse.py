"""From composed YAML to the typed configuration of each verb.

Conversion and type checks derive from the schema (`kdrun.config.convert`). Here is what a single
node does not show: shorthands, names that have a default, and what depends on another node.
"""

from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from kdrun.config import readers, rules, schema
from kdrun.config.augment import fill_in, from_crop_flip
from kdrun.config.convert import declared_values, from_plain, prepares, to_plain
from kdrun.config.plain import require_plain
from kdrun.config.settings import keys_of
from kdrun.config.teachers import teacher_nodes
from kdrun.errors import ConfigError, did_you_mean

GROUPS = (
    *("dataset", "teacher", "student", "schedule", "augment", "scheme", "logger"),
    *("sweep", "search"),
)
STUDENT = "student"  # in `scheme.peers`: another network like the student
# Arguments that were added after runs and teachers had been made without them. They are left out
# while they hold their default, so that configurations and fingerprints stay what they were.
LATER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "kdrun.models.resnet.ResNet": {"shortcut": "projection", "drop_path": 0.0},
    "kdrun.losses.kd.SoftTargets": {"regions": None},
    "kdrun.losses.dkd.DecoupledDistillation": {"regions": None},
    "kdrun.losses.nkd.NormalisedDistillation": {"regions": None},
    "kdrun.losses.kdsvd.SingularVectors": {"signs": "positive"},
    "kdrun.losses.wkd_l.WassersteinLogits": {"variant": "classifier"},
}
SHIPPED_SOURCES = "kdrun.data."
LATER_SOURCE_ARGUMENTS = {
    "background": "white",
    "value_range": "auto",
    "skip_broken": False,
    "train_folder": None,
    "val_folder": None,
    "test_folder": None,
    "class_order": "natural",
    "test_speakers": None,
}


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Plain containers with every interpolation resolved and every `???` filled in."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or str(error).split(": ")[-1].strip()
        raise ConfigError(f"{key} has no value: add {key}=... to the command.") from None
    except InterpolationResolutionError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"The configuration cannot be resolved: {reason}.") from None
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
    dataset = dataset_config(plain["dataset"])
    _set_teacher_augment(plain, dataset)
    return schema.TrainTeacherConfig(
        dataset=dataset,
        teachers=_chosen_teachers(plain),
        logger=from_plain(schema.LoggerConfig, plain["logger"], "logger"),
        **declared_values(schema.TrainTeacherConfig, plain),
    )


def distill_config(cfg: DictConfig) -> schema.DistillConfig:
    """The typed configuration of `kdrun distill`."""
    return _distill(resolve(cfg))


def _distill(plain: dict[str, Any]) -> schema.DistillConfig:
    _set_recipe(plain, plain["schedule"])
    loss = loss_configs(plain.get("loss"))
    student, start = _student(plain["student"])
    student = _cut_from_teacher(student, plain)
    schedule = from_plain(schema.ScheduleConfig, plain["schedule"], "schedule")
    scheme = scheme_config(plain["scheme"], plain["student"])
    dataset = dataset_config(plain["dataset"])
    _fill_teacher_augments(plain, dataset)
    teachers = _teachers(plain, loss, scheme, student, schedule)
    rules.pruned_student(student, scheme)
    ensemble = schema.EnsembleConfig()
    if teachers and scheme.uses_teacher is True:
        ensemble = _ensemble(plain["teacher"])
    return schema.DistillConfig(
        dataset=dataset,
        teachers=teachers,
        student=student,
        loss=loss,
        schedule=schedule,
        augment=augment_config(plain.get("augment"), dataset),
        scheme=scheme,
        logger=from_plain(schema.LoggerConfig, plain["logger"], "logger"),
        ensemble=ensemble,
        start=start,
        **declared_values(schema.DistillConfig, plain),
    )


def benchmark_config(cfg: DictConfig) -> schema.BenchmarkConfig:
    """The typed configuration of `kdrun benchmark`."""
    plain = resolve(cfg)
    return schema.BenchmarkConfig(_distill(plain), **declared_values(schema.BenchmarkConfig, plain))


def search_config(cfg: DictConfig) -> schema.SearchConfig:
    """The search's own part of the configuration of `kdrun search`."""
    config = from_plain(schema.SearchConfig, resolve(cfg.search), "search")
    rules.search(config)
    return config


def evaluate_config(cfg: DictConfig) -> schema.EvaluateConfig:
    """The typed configuration of `kdrun evaluate`."""
    plain = resolve(cfg)
    return schema.EvaluateConfig(
        dataset=dataset_config(plain["dataset"]) if plain.get("dataset") else None,
        bare=_weights_of_run(plain),
        **declared_values(schema.EvaluateConfig, plain),
    )


def export_config(cfg: DictConfig) -> schema.ExportConfig:
    """The typed configuration of `kdrun export`."""
    plain = resolve(cfg)
    return schema.ExportConfig(
        dataset=dataset_config(plain["dataset"]) if plain.get("dataset") else None,
        bare=_weights_of_run(plain),
        **declared_values(schema.ExportConfig, plain),
    )


def dataset_config(node: dict[str, Any]) -> schema.DatasetConfig:
    """The typed configuration of a `dataset` node."""
    return from_plain(schema.DatasetConfig, node, "dataset")


def augment_config(
    node: dict[str, Any] | None, dataset: schema.DatasetConfig, where: str = "augment"
) -> schema.AugmentConfig:
    """The typed configuration of an `augment` node; without one, the data set's crops and flips."""
    if node is None:
        return from_crop_flip(dataset.augment)
    return from_plain(schema.AugmentConfig, fill_in(node, dataset.augment), where)


def _set_teacher_augment(plain: dict[str, Any], dataset: schema.DatasetConfig) -> None:
    """Top-level `augment` of `train-teacher` is that of its teachers."""
    _fill_teacher_augments(plain, dataset)
    augment = augment_config(plain.get("augment"), dataset)
    if augment == from_crop_flip(dataset.augment):
        return
    if plain["teacher"].get("augment") is not None:
        raise ConfigError(
            "augment= and teacher.augment= are two names of one thing: give only one of them."
        )
    plain["teacher"]["augment"] = to_plain(augment)


def _fill_teacher_augments(plain: dict[str, Any], dataset: schema.DatasetConfig) -> None:
    """Replace nulls in `teacher.augment`, `teacher2.augment`, ... by the data set's settings."""
    for name, node in plain.items():
        own = node.get("augment") if isinstance(node, dict) else None
        if name.startswith("teacher") and isinstance(own, dict):
            node["augment"] = fill_in(own, dataset.augment)


def scheme_config(node: dict[str, Any], student: dict[str, Any]) -> schema.SchemeConfig:
    """The typed configuration of a `scheme` node.

    student: the student's node, which the peer `student` stands for. Names of networks were
    replaced by their nodes when the configuration was composed.
    """
    node = {**node, "uses_teacher": _uses_teacher(node)}
    if "peers" in node:
        like_it = {key: student[key] for key in student if key not in keys_of(schema.StartConfig)}
        node["peers"] = _peers(node["peers"], like_it)
    config = from_plain(schema.SchemeConfig, node, "scheme")
    rules.rounds(config.rounds)
    return config


def _uses_teacher(node: dict[str, Any]) -> bool | str:
    """One of `schema.USES_TEACHER`; the YAML may also map each variant to one."""
    uses, variant = node.get("uses_teacher", True), node.get("variant")
    if isinstance(uses, dict):
        if variant not in uses:
            hint = did_you_mean(str(variant), map(str, uses))
            names = ", ".join(map(str, uses))
            raise ConfigError(f"scheme.variant={variant} is not one of {names}.{hint}")
        uses = uses[variant]
    if node.get("first") == "labels":
        return STUDENT
    if uses not in schema.USES_TEACHER:
        raise ConfigError(f"scheme.uses_teacher={uses} is not true, false or student.")
    assert isinstance(uses, bool | str)
    return uses


def _peers(peers: Any, student: dict[str, Any]) -> list[Any]:
    if peers is None:
        return []
    if not isinstance(peers, list) or not peers:
        raise ConfigError(
            f"scheme.peers={peers} must be a list of networks, e.g. 'scheme.peers=[resnet20]', or "
            "[student] for another one like the student."
        )
    nodes = [student if peer == STUDENT else peer for peer in peers]
    return _network_nodes("scheme.peers", nodes)


def _network_nodes(where: str, nodes: list[Any]) -> list[Any]:
    for node in nodes:
        if not isinstance(node, dict):
            raise ConfigError(f"{where}: {node!r} is not the name of a network.")
    return nodes


@prepares(schema.RoundsConfig)
def _rounds(node: dict[str, Any], where: str) -> dict[str, Any]:
    if "assistants" in node:
        assistants = node["assistants"]
        if not isinstance(assistants, list) or not assistants:
            raise ConfigError(
                "scheme=chain needs networks between teacher and student, the largest first, e.g. "
                "'scheme.assistants=[resnet32,resnet20]'."
            )
        _network_nodes(f"{where}.assistants", assistants)
    return node


@prepares(schema.DatasetConfig)
def _dataset(node: dict[str, Any], where: str) -> dict[str, Any]:
    arguments = {key: node[key] for key in node if key not in keys_of(schema.DatasetConfig)}
    if node.get("num_classes", "") is None:
        del node["num_classes"]
    readers.require_text(arguments)
    if node.get("name") is None:
        node["name"] = readers.place_name(arguments)
    if node.get("augment", "") is None:
        del node["augment"]
    if not _target(node, where).startswith(SHIPPED_SOURCES):
        return node
    if "class_order" in node:
        name = f"{where}.class_order"
        node["class_order"] = readers.dataset_class_order(node["class_order"], name)
    return _without(node, LATER_SOURCE_ARGUMENTS)


@prepares(schema.NetworkConfig)
def _network(node: dict[str, Any], where: str) -> dict[str, Any]:
    target = _target(node, where)
    node["name"] = str(node.get("name") or target.rsplit(".", 1)[-1])
    return _without(node, LATER_ARGUMENTS.get(target, {}))


def _without(node: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The node without arguments that hold these defaults."""
    return {
        key: value for key, value in node.items() if key not in defaults or value != defaults[key]
    }


@prepares(schema.SchemeConfig)
@prepares(schema.LoggerConfig)
def _named(node: dict[str, Any], where: str) -> dict[str, Any]:
    if node.get("name") is None:
        raise ConfigError(f"The {where}'s YAML has no name: add the line 'name: ...' to it.")
    if where == "scheme":
        _target(node, where)
    return node


@prepares(schema.TeacherConfig)
def _teacher_node(node: dict[str, Any], where: str) -> dict[str, Any]:
    training = node.get("schedule") or {}
    if not isinstance(training, dict):
        raise ConfigError(
            f"{where}.schedule is a group of settings: to choose one, type "
            f"schedule@{where}.schedule={training}."
        )
    return {**node, "schedule": training}


def _target(node: dict[str, Any], where: str) -> str:
    target = node.get("_target_")
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(
            f"{where}._target_ must be the dotted path of a class or function, "
            f"e.g. {where}._target_=mypackage.MyClass."
        )
    return target


def _set_recipe(plain: dict[str, Any], schedule: dict[str, Any]) -> None:
    """Write the top-level recipe (`epochs=5`) into the schedule it stands for.

    The types are checked here, under the name the user typed.
    """
    recipe = declared_values(schema.ScheduleConfig, {key: plain[key] for key in rules.RECIPE})
    schedule.update(recipe)


def _student(node: dict[str, Any]) -> tuple[schema.NetworkConfig, schema.StartConfig | None]:
    start_keys = keys_of(schema.StartConfig)
    start = {key: value for key, value in node.items() if key in start_keys}
    network = {key: value for key, value in node.items() if key not in start_keys}
    return from_plain(schema.NetworkConfig, network, "student"), start_config(start)


def _cut_from_teacher(student: schema.NetworkConfig, plain: dict[str, Any]) -> schema.NetworkConfig:
    """A pruned student knows the network it is cut from: that of the first teacher."""
    if student.target != rules.PRUNED or student.kwargs.get("network") is not None:
        return student
    if not isinstance(plain.get("teacher"), dict):
        return student
    nodes = teacher_nodes(plain)
    teacher = _teacher(nodes[0][1], nodes[0][0]).network
    network = {"_target_": teacher.target, **teacher.kwargs}
    given = {key: value for key, value in student.kwargs.items() if value is not None}
    return replace(student, kwargs={**given, "network": network})


def start_config(node: dict[str, Any], where: str = "student") -> schema.StartConfig | None:
    """The initial weights of a student's node; None for random ones.

    Raises ConfigError for settings without effect.
    """
    described = from_plain(schema.StartConfig, {**node, "checkpoint": "unnamed"}, where)
    if node.get("checkpoint") is not None:
        return from_plain(schema.StartConfig, node, where)
    rules.needs_checkpoint(described.reading, where)
    if described.new_classifier:
        raise ConfigError(
            f"{where}.new_classifier=true needs {where}.checkpoint=FILE, the weights whose "
            "classifier is left out."
        )
    return None


def _chosen_teachers(plain: dict[str, Any]) -> tuple[schema.TeacherConfig, ...]:
    """All teachers that `teacher`, `teacher1`, `teacher2`, ... describe."""
    teachers = tuple(_teacher(node, where) for where, node in teacher_nodes(plain))
    rules.no_twins(teachers)
    if all(teacher.checkpoint is None and teacher.start is None for teacher in teachers):
        for teacher in teachers:
            rules.needs_checkpoint(teacher.reading, "teacher")
    return teachers


def _teacher(node: dict[str, Any], where: str) -> schema.TeacherConfig:
    config = from_plain(schema.TeacherConfig, node, where)
    rules.teacher_constants(config.input, where)
    return config


def _teachers(
    plain: dict[str, Any],
    loss: dict[str, schema.LossConfig],
    scheme: schema.SchemeConfig,
    student: schema.NetworkConfig,
    schedule: schema.ScheduleConfig,
) -> tuple[schema.TeacherConfig, ...]:
    """The teachers that the scheme and the objective need."""
    if scheme.uses_teacher is False or all(name == "ce" for name in loss):
        return ()
    if scheme.uses_teacher == STUDENT:
        seed = declared_values(schema.DistillConfig, {"seed": plain["seed"]})["seed"]
        return (schema.TeacherConfig(student, schedule, seed),)
    return _chosen_teachers(plain)


def _ensemble(node: dict[str, Any]) -> schema.EnsembleConfig:
    keys = keys_of(schema.EnsembleConfig)
    given = {key: node[key] for key in keys if node.get(key) is not None}
    return from_plain(schema.EnsembleConfig, given, "teacher")


def loss_configs(node: Any) -> dict[str, schema.LossConfig]:
    """The losses of an objective by name, from plain settings."""
    if not isinstance(node, dict) or not node:
        raise ConfigError("The objective is empty: choose a loss, e.g. loss=kd or 'loss=[kd,sp]'.")
    losses = {}
    for name, loss in node.items():
        where = f"loss.{name}"
        if not isinstance(loss, dict):
            raise ConfigError(f"{where} must be a group of settings with a _target_.")
        if "_target_" not in loss:  # a scheme's settings for a loss that was not chosen
            continue
        loss = _without(loss, LATER_ARGUMENTS.get(_target(loss, where), {}))
        losses[str(name)] = from_plain(schema.LossConfig, loss | {"id": str(name)}, where)
    return losses


def _weights_of_run(plain: dict[str, Any]) -> schema.TeacherConfig | None:
    """How to read `run=FILE`, where `teacher=...` says which network its weights belong to."""
    node = plain.get("teacher") or {}
    if "_target_" not in node:
        given = [f"teacher.{key}" for key, value in node.items() if value is not None]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: the network of the weights run={plain['run']} is not known: "
                "add teacher=..., e.g. teacher=resnet56."
            )
        return None
    if not plain.get("dataset"):
        raise ConfigError(
            f"teacher= is for weights without a card, which do not name their data set: add "
            f"dataset=... to read run={plain['run']}."
        )
    return _teacher({**node, "checkpoint": plain["run"]}, "teacher")
