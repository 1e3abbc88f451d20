"""Plain nodes to dataclasses of the schema and back, derived from the declared fields.

Types are checked here and named as the user typed them; ranges are checked by `check_ranges`.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from kdrun.config.readers import is_number
from kdrun.config.settings import Setting, keys_of, settings_of
from kdrun.errors import ConfigError, did_you_mean
from kdrun.ranges import check_settings

ConfigT = TypeVar("ConfigT")
Prepare = Callable[[dict[str, Any], str], dict[str, Any]]
# Scalar type → how an error names it.
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}

_prepare: dict[Any, Prepare] = {}


def prepares(cls: Any) -> Callable[[Prepare], Prepare]:
    """Decorator: `(node, where) -> node`, run on every node of this dataclass before conversion."""

    def add(function: Prepare) -> Prepare:
        _prepare[cls] = function
        return function

    return add


def from_plain(cls: type[ConfigT], node: Any, where: str = "") -> ConfigT:
    """The dataclass that a node describes.

    where: the node's name in errors; empty at the top level.
    Raises ConfigError for unknown keys and values of the wrong type.
    """
    if not isinstance(node, dict):
        raise ConfigError(f"{where} must be a group of settings, and is {shown(node):.60}.")
    if cls in _prepare:
        node = _prepare[cls](dict(node), where)
    values: dict[str, Any] = {}
    claimed = set(keys_of(cls))
    rest = {key: value for key, value in node.items() if key not in claimed}
    takes_rest = False
    for each in settings_of(cls):
        if each.meta.rest:
            values[each.name], takes_rest = rest, True
        elif each.meta.inline:
            inner = {key: node[key] for key in keys_of(each.nested) if key in node}
            if _takes_rest(each.nested):
                inner, takes_rest = inner | rest, True
            if inner or not _optional(each.hint):
                values[each.name] = from_plain(each.nested, inner, where)
        elif each.key in node:
            values[each.name] = _value(each, node[each.key], _name(where, each.key))
    if rest and not takes_rest:
        unknown = next(iter(rest))
        raise ConfigError(
            f"{_name(where, unknown)} does not exist.{did_you_mean(unknown, claimed)}"
        )
    missing = [each for each in settings_of(cls) if _is_missing(each) and each.name not in values]
    if missing:
        name = _name(where, missing[0].key)
        raise ConfigError(f"{name} has no value: add {name}=... to the command.")
    return cls(**values)


def declared_values(cls: Any, node: dict[str, Any]) -> dict[str, Any]:
    """Field → value of what is in a top-level node and declared with `setting` or `required`.

    Other fields of the dataclass are made by the caller.
    """
    values: dict[str, Any] = {}
    for each in settings_of(cls):
        if not each.is_declared:
            continue
        if each.meta.inline:
            inner = {key: node[key] for key in keys_of(each.nested) if key in node}
            values[each.name] = from_plain(each.nested, inner)
        elif each.key in node:
            values[each.name] = _value(each, node[each.key], each.key)
    return values


def to_plain(config: Any, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The node that `from_plain` reads back to an equal dataclass. only: these fields."""
    node: dict[str, Any] = {}
    for each in settings_of(type(config)):
        if only is not None and each.name not in only:
            continue
        value = getattr(config, each.name)
        if each.meta.quiet and value == each.default:
            continue
        if each.meta.rest:
            node |= value
        elif each.meta.inline:
            node |= {} if value is None else to_plain(value)
        else:
            node[each.key] = _plain(value)
    return node


def check_ranges(config: Any, where: str | Callable[[str], str] = "", nested: bool = True) -> None:
    """Raise ConfigError for the first value out of its range.

    where: the node's name in errors, or a function from key to name.
    nested: also check the dataclasses within, except required ones, which are checked apart.
    """
    name = where if callable(where) else lambda key: _name(where, key)
    cls = type(config)
    check_settings(config, lambda field: name(_key_of(cls, field)))
    if not nested:
        return
    for each in settings_of(cls):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value) and not _is_missing(each):
            check_ranges(value, where if each.meta.inline else name(each.key))


def shown(value: Any) -> str:
    """A value for an error message, as it is typed."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value)


def _key_of(cls: Any, name: str) -> str:
    return next(each.key for each in settings_of(cls) if each.name == name)


def _name(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _is_missing(each: Setting) -> bool:
    unset = each.field.default is dataclasses.MISSING
    return unset and each.field.default_factory is dataclasses.MISSING


def _takes_rest(cls: Any) -> bool:
    return any(each.meta.rest for each in settings_of(cls))


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, ranges removed; of another type, itself."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(one for option in typing.get_args(hint) for one in _options(option))
    return (hint,)


def _optional(hint: Any) -> bool:
    return type(None) in _options(hint)


def _value(each: Setting, value: Any, name: str) -> Any:
    if each.meta.read is not None:
        return each.meta.read(value, name)
    return _converted(each.hint, value, name)


def _converted(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type `hint`. Raises ConfigError."""
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    (kind,) = (option for option in options if option is not type(None))
    origin = typing.get_origin(kind) or kind
    if dataclasses.is_dataclass(kind):
        return from_plain(kind, value, name)  # type: ignore[arg-type]
    if kind is Any:
        return value
    if origin in (list, tuple):
        item = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}={shown(value)} is not a list{_of(item)}.")
        try:
            return origin(_converted(item, entry, name) for entry in value)
        except ConfigError:
            raise ConfigError(f"{name}={shown(value)} is not a list{_of(item)}.") from None
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{name} must be a group of settings, and is {shown(value):.60}.")
        item = typing.get_args(kind)[1]
        return {str(key): _converted(item, one, f"{name}.{key}") for key, one in value.items()}
    return _scalar(kind, value, name)


def _of(item: Any) -> str:
    return " of numbers" if set(_options(item)) & {int, float} else ""


def _scalar(kind: type, value: Any, name: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and is_number(value) and isinstance(value, int):
        return value
    if kind is float and is_number(value):
        return float(value)
    if kind is str and (isinstance(value, str) or is_number(value)):
        return str(value)
    is_not = "is neither" if kind is bool else "is not"
    named = "true nor false" if kind is bool else NAMES[kind]
    raise ConfigError(f"{name}={shown(value)} {is_not} {named}.")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value
