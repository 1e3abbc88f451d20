"""Validate values read from a run's files.

`kdrun.runs.result` defines `result.json`; this module defines the parts of `config.yaml` and
`metrics.jsonl` that reports read. Null and missing entries are always valid.
"""

from typing import Any

from kdrun.limits import finite


def percent(value: Any) -> bool:
    """0 to 100."""
    number = finite(value)
    return number is not None and 0 <= number <= 100


def points(value: Any) -> bool:
    """A difference of two percentages."""
    number = finite(value)
    return number is not None and -100 <= number <= 100


def count(value: Any) -> bool:
    """A count, size or duration."""
    number = finite(value)
    return number is not None and 0 <= number < 1e18


def number(value: Any) -> bool:
    """Finite, and small enough to sum and square."""
    converted = finite(value)
    return converted is not None and abs(converted) < 1e18


def whole(value: Any) -> bool:
    """An integer, for a seed."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64


GROUP: dict[str, Any] = {"name": str}
GROUPS = ("dataset", "teacher", "student", "scheme", "logger", "schedule")
CONFIG: dict[str, Any] = {**dict.fromkeys(GROUPS, GROUP), "loss": {}}
EPOCH = {"epoch": count, "val/top1_percent": percent}


def fits(value: Any, shape: Any) -> bool:
    """Whether a value matches a shape.

    A shape is a type, a predicate, a one-element list (shape of all elements) or a dict of shapes.
    """
    if value is None:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            fits(value.get(name), inner) for name, inner in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(
            element is not None and fits(element, shape[0]) for element in value
        )
    return isinstance(value, shape) if isinstance(shape, type) else bool(shape(value))
