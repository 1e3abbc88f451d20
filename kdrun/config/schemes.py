"""The reserved keys of a `scheme` node: who its teachers are, and who learns beside the student.

They are read before anything is built, so that no teacher is trained for a scheme that has none.
"""

from collections.abc import Callable
from typing import Any

from kdrun.config import schema
from kdrun.errors import ConfigError, did_you_mean

STUDENT = "student"  # as the name of a peer: another network like the student


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
