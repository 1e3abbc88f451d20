"""Plain values only: the rule for every resolved configuration, composed or read from a file.

A value is null, a bool, a finite float, a 64-bit integer, a string, or a list or dict of these. No
string contains `${`: OmegaConf would resolve it as an interpolation when the configuration is
loaded again, and an interpolation from an untrusted file could read this machine's environment.
"""

import math
from collections.abc import Iterator
from typing import Any

from kdrun.errors import ConfigError

INTERPOLATION = "${"
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1


def require_plain(values: Any, source: str = "") -> None:
    """Raise ConfigError for the first key or value that is not plain.

    source: the file that the values come from, for the message.
    """
    for problem in _problems(values, ""):
        raise ConfigError(f"{source}: {problem}" if source else problem)


def holds_interpolation(text: str) -> bool:
    """Whether OmegaConf would resolve an interpolation in this text."""
    return INTERPOLATION in text


def _problems(value: Any, path: str) -> Iterator[str]:
    """A sentence for each value that is not plain; `path` is the setting's name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _key_problems(key, path)
            yield from _problems(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _problems(inner, f"{path}[{position}]")
    elif isinstance(value, str):
        yield from _text_problems(value, path)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            yield f"{path} is a whole number that does not fit 64 bits: take a smaller one."
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{path}={value} must be a finite number."
    else:
        yield f"{path} is a {type(value).__name__}: give a number, a text, a list or a group."


def _key_problems(key: Any, path: str) -> Iterator[str]:
    if isinstance(key, int):  # truth values as well
        return
    where = f"in {path}" if path else "at the top"
    if not isinstance(key, str):
        yield f"The key {key!r} {where} is a {type(key).__name__}: name settings with a text."
    elif not key.strip() or not key.isprintable():
        yield f"The key {key!r} {where} is blank or has unprintable characters: rename it."
    elif holds_interpolation(key):
        yield f"The key {key!r} {where} holds {INTERPOLATION}: rename it."


def _text_problems(text: str, path: str) -> Iterator[str]:
    if holds_interpolation(text):
        yield (
            f"{path} holds {INTERPOLATION}...}}, which is not a plain value: write the value "
            "itself, or rename the file or folder of that name."
        )
    elif any("\ud800" <= character <= "\udfff" for character in text):
        yield f"{path}={text!r} has bytes that are not UTF-8: rename that file or folder."
