"""The reserved keys of a `scheme` node: who its teachers are, and who learns beside the student.

They are read before anything is built, so that no teacher is trained for a scheme that has none.
"""

from collections.abc import Callable
from typing import Any

from kdrun.config import schema
from kdrun.config.sizes import check_networks
from kdrun.errors import ConfigError, did_you_mean

STUDENT = "student"  # as the name of a peer: another network like the student
ROUND_KEYS = ("assistants", "generations", "keep_first", "first")
FIRST = ("teacher", "labels")


def uses_teacher(given: Any, variant: Any) -> bool | str:
    """`scheme.uses_teacher`: one of `schema.USES_TEACHER`, or a dict of variant → one of them."""
    if isinstance(given, dict):
        if variant not in given:
            hint = did_you_mean(str(variant), map(str, given))
            names = ", ".join(map(str, given))
            raise ConfigError(f"scheme.variant={variant} is not one of {names}.{hint}")
        given = given[variant]
    if given not in schema.USES_TEACHER:
        raise ConfigError(f"scheme.uses_teacher={given} is not true, false or student.")
    assert isinstance(given, bool | str)
    return given


def peers(
    given: Any,
    student: schema.NetworkConfig,
    network: Callable[[dict[str, Any], str], schema.NetworkConfig],
) -> tuple[schema.NetworkConfig, ...]:
    """`scheme.peers`: networks, or `student` for another one like it.

    network: makes the configuration of a node, given its place. Names of networks were replaced
    by what they stand for when the configuration was composed.
    """
    if given is None:
        return ()
    if not isinstance(given, list) or not given:
        raise ConfigError(
            f"scheme.peers={given} must be a list of networks, e.g. 'scheme.peers=[resnet20]', or "
            "[student] for another one like the student."
        )
    found = []
    for number, peer in enumerate(given):
        if peer == STUDENT:
            found.append(student)
        elif isinstance(peer, dict):
            found.append(network(peer, f"scheme.peers.{number}"))
        else:
            raise ConfigError(f"scheme.peers: {peer!r} is not the name of a network.")
    return tuple(found)


def rounds(
    node: dict[str, Any],
    network: Callable[[dict[str, Any], str], schema.NetworkConfig],
) -> schema.RoundsConfig | None:
    """The rounds of a `scheme` node that has any of `ROUND_KEYS`, else None.

    network: as for `peers`. Raises ConfigError for rounds that cannot be, or would be none.
    """
    if not any(key in node for key in ROUND_KEYS):
        return None
    if "assistants" in node:
        return schema.RoundsConfig(assistants=_assistants(node["assistants"], network))
    count, keep, first = node.get("generations", 1), node.get("keep_first", False), node["first"]
    if isinstance(count, bool) or not isinstance(count, int):
        raise ConfigError(f"scheme.generations={count!r} is not a whole number.")
    if not isinstance(keep, bool):
        raise ConfigError(f"scheme.keep_first={keep!r} is neither true nor false.")
    if first not in FIRST:
        hint = did_you_mean(str(first), FIRST)
        raise ConfigError(f"scheme.first={first} is not one of {', '.join(FIRST)}.{hint}")
    check_networks("scheme.generations", count)
    fewest = 2 if first == "labels" else 1
    if count < fewest:
        why = " when the first is trained on labels only" if first == "labels" else ""
        raise ConfigError(f"scheme.generations={count} must be at least {fewest}{why}.")
    if keep and count == fewest:
        raise ConfigError(
            f"scheme.keep_first=true would change nothing: with scheme.generations={count} there "
            f"is one round of distillation. Set scheme.generations={count + 1}."
        )
    return schema.RoundsConfig((), count, keep, first == "labels")


def _assistants(
    given: Any, network: Callable[[dict[str, Any], str], schema.NetworkConfig]
) -> tuple[schema.NetworkConfig, ...]:
    if not isinstance(given, list) or not given:
        raise ConfigError(
            "scheme=chain needs networks between teacher and student, the biggest first, e.g. "
            "'scheme.assistants=[resnet32,resnet20]'."
        )
    found = []
    for number, one in enumerate(given):
        if not isinstance(one, dict):
            raise ConfigError(f"scheme.assistants: {one!r} is not the name of a network.")
        found.append(network(one, f"scheme.assistants.{number}"))
    return tuple(found)
