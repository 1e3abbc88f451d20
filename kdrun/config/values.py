"""Groups of settings made into dataclasses, their types checked, named as the user typed them."""

import dataclasses
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from kdrun.errors import ConfigError, did_you_mean

DataclassT = TypeVar("DataclassT")


# Jobs of a sweep share most groups of settings, and OmegaConf takes milliseconds for each.
_known: dict[tuple[type[Any], str, str], Any] = {}
MOST_KNOWN = 1000


def typed(cls: type[DataclassT], values: dict[str, Any], where: str) -> DataclassT:
    """`values` as an instance of the dataclass `cls`; `where` names the node in errors.

    Equal values give the same frozen instance.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a group of settings, and is {values!r:.60}.")
    key = (cls, repr(values), where)
    if key not in _known:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[key] = _typed(cls, values, where)
    found: DataclassT = _known[key]
    return found


def _typed(cls: type[DataclassT], values: dict[str, Any], where: str) -> DataclassT:
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(f"{where}.{key} does not exist.{did_you_mean(key, names)}")
    node = OmegaConf.structured(cls)
    _unlock(node)
    for key, value in values.items():
        is_boolean = bool in _options(_hints(cls)[key])
        if is_boolean and value is not None and not isinstance(value, bool):
            raise ConfigError(f"{_public(where, key)}={value!r} is not true or false.")
        try:
            OmegaConf.update(node, key, value, merge=False)
        except ConfigKeyError as error:
            raise ConfigError(f"{where}.{key}: {first_line(error)}.") from None
        except OmegaConfBaseException:
            expected = _type_name(cls, key)
            raise ConfigError(f"{_public(where, key)}={value!r} is not {expected}.") from None
    result = OmegaConf.to_object(node)
    assert isinstance(result, cls)
    return result


def _hints(cls: Any) -> dict[str, Any]:
    """The annotations of a dataclass, resolved once."""
    return _resolved(cls)


@cache
def _resolved(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union; of another type, itself."""
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _unlock(node: Any) -> None:
    """Frozen dataclasses make read-only nodes; these are still being filled."""
    OmegaConf.set_readonly(node, False)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _unlock(child)


def _type_name(cls: type[Any], key: str) -> str:
    text = str(_hints(cls)[key])
    for name, words in (
        ("list", "a list of numbers"),
        ("bool", "true or false"),
        ("int", "a whole number"),
        ("float", "a number"),
        ("str", "a text"),
    ):
        if name in text:
            return words
    return "a group of settings"


def _public(where: str, key: str) -> str:
    """The name the user typed: top-level names stand for those of the schedule."""
    return f"{where}.{key}" if where else key


def first_line(error: Exception) -> str:
    """Of its message."""
    return str(error).strip().splitlines()[0]
