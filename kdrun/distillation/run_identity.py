"""Name and identity of a run: its place under `outputs/`, and the key that finds it again."""

from dataclasses import asdict
from typing import Any

from kdrun.config.dump import distill_plain, train_teacher_plain
from kdrun.config.rules import PRUNED
from kdrun.config.schema import (
    DistillConfig,
    RuntimeConfig,
    TeacherRuntimeConfig,
    TrainTeacherConfig,
)
from kdrun.distillation.initial_weights import start_identity, teacher_files_entry
from kdrun.files import canonical_hash
from kdrun.own_code import code_entry
from kdrun.runs.folder import counted_names
from kdrun.teachers.cache_setup import AUTO, OFF


def run_name(config: DistillConfig) -> str:
    """`<teachers>-<student>-<losses>`; the scheme's name if it has no teacher."""
    teachers = counted_names(teacher.network.name for teacher in config.teachers) or "none"
    if config.scheme.rounds is not None:
        teachers = f"{config.scheme.name}+{teachers}"
    elif config.scheme.uses_teacher is not True:
        peers = [peer.name for peer in config.scheme.peers]
        teachers = "+".join([config.scheme.name, *peers])
    return f"{teachers}-{config.student.name}-{'+'.join(config.loss)}"


def identity(config: DistillConfig) -> str:
    """Hash of everything that affects the result: equal for equivalent configurations.

    Runtime and logger settings are left out. The user's own code and the teachers' files count as
    they are now.
    """
    return _with_contents(settings_identity(config), config, distill_plain(config))


def settings_identity(config: DistillConfig) -> str:
    """`identity` of the settings and the student's initial weights: that of its checkpoints.

    The user's own code may be mended before a run is resumed; other weights of a teacher are
    refused then (`initial_weights.refuse_changed`).
    """
    plain = _without_runtime(distill_plain(config))
    for name, node in plain.items():
        if name.startswith("teacher") and isinstance(node, dict):
            plain[name] = _shaping(node)
    if config.student.target == PRUNED:  # follows from the other settings
        derived = ("widths", "blocks")
        plain["student"] = {k: v for k, v in plain["student"].items() if k not in derived}
    return canonical_hash({**plain, **start_identity(config)})


def teacher_identity(config: TrainTeacherConfig) -> str:
    """`identity` of a `train-teacher` run."""
    plain = _without_runtime(train_teacher_plain(config))
    return _with_contents(canonical_hash(plain), config, plain)


def own_code_entry(plain: dict[str, Any]) -> dict[str, dict[str, str]]:
    """`code`: target → digest of the user's own code in a configuration; empty without any."""
    return code_entry({name: node for name, node in plain.items() if name != "logger"})


def _without_runtime(plain: dict[str, Any]) -> dict[str, Any]:
    """A plain configuration without the settings that do not affect the result."""
    left_out = (*RuntimeConfig.__dataclass_fields__, "logger")
    return {name: value for name, value in plain.items() if name not in left_out}


def _with_contents(
    digest: str, config: DistillConfig | TrainTeacherConfig, plain: dict[str, Any]
) -> str:
    contents = {**own_code_entry(plain), **teacher_files_entry(config.teachers)}
    return canonical_hash({"settings": digest, **contents}) if contents else digest


def _shaping(teacher: dict[str, Any]) -> dict[str, Any]:
    """A teacher's plain settings without runtime settings that do not affect the result."""
    defaults = asdict(TeacherRuntimeConfig())
    names = ("precision", "fold", "cache_dtype")
    changing: dict[str, Any] = {key: teacher[key] for key in names if key in teacher}
    if teacher.get("cache", AUTO) not in (AUTO, OFF):
        changing["cache"] = teacher["cache"]
    others = {key: value for key, value in teacher.items() if key not in defaults}
    return others | {key: value for key, value in changing.items() if value != defaults[key]}
