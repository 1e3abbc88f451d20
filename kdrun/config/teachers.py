"""Several teachers in plain form: `teacher`, which all share, and `teacher1`, `teacher2`, ...

`teacher` describes the first teacher and the settings that all share. `teacherN` is either another
network (`teacher2` with a `_target_`), or settings of teacher number N alone: what it does not set
is as in `teacher`. `teacher.count` makes several teachers of one network with different seeds.
"""

import re
from collections.abc import Mapping
from typing import Any

from kdrun.config import rules, schema
from kdrun.config.settings import keys_of
from kdrun.errors import ConfigError

NUMBERED = re.compile(r"teacher([1-9][0-9]*)$")
# What a teacher has besides its network.
TEACHER_KEYS = tuple(
    key for key in keys_of(schema.TeacherConfig) if key not in keys_of(schema.NetworkConfig)
)
# What describes all teachers together.
ENSEMBLE_KEYS = ("count", *keys_of(schema.EnsembleConfig))


def teacher_nodes(plain: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name in errors, complete node) of every teacher, in order.

    Raises ConfigError for gaps in the numbering, and for settings of a teacher that does not exist.
    """
    shared = {k: v for k, v in plain["teacher"].items() if k not in ENSEMBLE_KEYS}
    numbered = _numbered(plain)
    count = _count(plain["teacher"], numbered)
    if count == 1 and 1 not in numbered:
        return [("teacher", shared)]
    if shared.get("checkpoint") not in (None, "pretrained") and count > 1:
        raise ConfigError(
            f"teacher.checkpoint={shared['checkpoint']} would be the weights of all {count} "
            "teachers: set teacher1.checkpoint=..., teacher2.checkpoint=... instead."
        )
    several = plain["teacher"].get("count", 1) != 1
    return [
        (f"teacher{number}", _node(shared, numbered.get(number, {}), number - 1 if several else 0))
        for number in range(1, count + 1)
    ]


def _numbered(plain: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    nodes = {}
    for key, node in plain.items():
        match = NUMBERED.match(str(key))
        if match is not None:
            if not isinstance(node, dict):
                raise ConfigError(f"{key} must be a group of settings.")
            nodes[int(match.group(1))] = node
    return nodes


def _count(teacher: Mapping[str, Any], numbered: Mapping[int, dict[str, Any]]) -> int:
    """The number of teachers."""
    count = teacher.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"teacher.count={count} must be a whole number of at least 1.")
    rules.network_count("teacher.count", count)
    named = sorted(number for number, node in numbered.items() if "_target_" in node and number > 1)
    if named and count > 1:
        raise ConfigError(
            f"teacher.count={count} makes teachers of one network, and there is a list of "
            f"{max(named)}: leave one of the two out."
        )
    count = max([count, *named])
    missing = [number for number in range(2, count) if named and number not in named]
    if missing:
        raise ConfigError(
            f"There is a teacher{count} and no teacher{missing[0]}: number them without a gap."
        )
    for number, node in numbered.items():
        if number > count:
            settings = ", ".join(f"teacher{number}.{key}" for key in node)
            raise ConfigError(
                f"{settings or f'teacher{number}'} is set, and there is no teacher {number}: "
                f"there {'is one' if count == 1 else f'are {count}'}. Name more, "
                "'teacher=[A,B]', or set teacher.count."
            )
    return count


def _node(shared: dict[str, Any], own: dict[str, Any], more_seed: int) -> dict[str, Any]:
    """One teacher's node: its settings override the shared ones."""
    own = {key: value for key, value in own.items() if key not in ENSEMBLE_KEYS}
    base = dict(shared)
    if "_target_" in own:
        base = {k: v for k, v in shared.items() if k in TEACHER_KEYS}
    elif more_seed and "seed" not in own and isinstance(base.get("seed"), int):
        base["seed"] = base["seed"] + more_seed
    for key in ("schedule", "augment"):
        if isinstance(own.get(key), dict) and isinstance(base.get(key), dict):
            own[key] = {**base[key], **own[key]}
    return {**base, **own}
