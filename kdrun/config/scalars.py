"""Single values of a node, their types checked; errors name the key as the user typed it."""

from typing import Any

from kdrun.errors import ConfigError


def number(plain: dict[str, Any], key: str) -> float:
    """A number, as a float."""
    value = plain[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}={value!r} is not a number.")
    return float(value)


def optional_number(plain: dict[str, Any], key: str) -> float | None:
    """A number, or None."""
    return None if plain[key] is None else number(plain, key)


def integer(plain: dict[str, Any], key: str) -> int:
    """A whole number."""
    value = plain[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}={value!r} is not a whole number.")
    return value


def boolean(plain: dict[str, Any], key: str) -> bool:
    """True or false."""
    value = plain[key]
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={value!r} is neither true nor false.")
    return value


def text(plain: dict[str, Any], key: str) -> str:
    """A text."""
    value = plain[key]
    if not isinstance(value, str):
        raise ConfigError(f"{key}={value!r} is not a text.")
    return value
