"""Value ranges of settings, declared as part of their type.

    epochs: Annotated[int, Range(low=1, high=1_000_000)] = 30
    hidden: list[Channels]

Used by the settings in `kdrun.config.schema` and by arguments of networks, losses and data sources.
No range contains NaN or infinity.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from kdrun.errors import ConfigError, did_you_mean

InitT = TypeVar("InitT", bound=Callable[..., None])


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high` inclusive, or between `above` and `below` exclusive.

    usual: usual values for the message, e.g. `1 to 20`.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    usual: str = ""

    def problem(self, value: Any) -> str | None:
        """Message to follow `name=value`; None if the value is in range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None  # types are checked elsewhere
        inside = (
            not (isinstance(value, float) and not math.isfinite(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if inside:
            return None
        usual = f" (usual: {self.usual})" if self.usual else ""
        return f"must {self._bounds(value)}{usual}"

    def _bounds(self, value: float) -> str:
        start, end = "[" if self.above is None else "(", "]" if self.below is None else ")"
        low = self.low if self.above is None else self.above
        high = self.high if self.below is None else self.below
        if low is not None and high is not None and high <= 1:
            return f"lie in {start}{low:g}, {high:g}{end}"
        if low is not None and not value > low:  # NaN as well
            return f"be {'at least' if self.above is None else 'above'} {_text(low)}"
        if high is not None:
            return f"be {'at most' if self.below is None else 'below'} {_text(high)}"
        return "be a finite number"


@dataclass(frozen=True)
class Choices:
    """One of these texts."""

    options: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        """As `Range.problem`."""
        if value in self.options:
            return None
        return f"is not one of {', '.join(self.options)}.{did_you_mean(str(value), self.options)}"


@dataclass(frozen=True)
class Items:
    """Number of items of a list."""

    low: int
    high: int

    def problem(self, value: Any) -> str | None:
        """As `Range.problem`."""
        if not isinstance(value, list | tuple) or self.low <= len(value) <= self.high:
            return None
        count = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
        return f"must have {count} item{'s' * (count != '1')}"


# Upper bounds are far above useful values and far below arithmetic overflow.
LARGEST_COUNT = 1_000_000
LARGEST_NUMBER = 1e6
Count = Annotated[int, Range(low=1, high=LARGEST_COUNT)]
CountOrZero = Annotated[int, Range(low=0, high=LARGEST_COUNT)]
Steps = Annotated[int, Range(low=1, high=1_000_000_000)]
Channels = Annotated[int, Range(low=1, high=LARGEST_COUNT)]
Layers = Annotated[int, Range(low=1, high=10_000)]
Pixels = Annotated[int, Range(low=1, high=65_536)]
Seed = Annotated[int, Range(low=-(2**62), high=2**62)]  # sums of seeds still fit 64 bits
Positive = Annotated[float, Range(above=0, high=LARGEST_NUMBER)]
NotNegative = Annotated[float, Range(low=0, high=LARGEST_NUMBER)]
Number = Annotated[float, Range(low=-LARGEST_NUMBER, high=LARGEST_NUMBER)]
Fraction = Annotated[float, Range(above=0, below=1)]
Share = Annotated[float, Range(low=0, below=1)]
Temperature = Annotated[float, Range(above=0, high=LARGEST_NUMBER, usual="1 to 20")]


def problems(hint: Any, value: Any) -> Iterator[str]:
    """Messages for a value outside the ranges of an annotated type."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *checks = typing.get_args(hint)
        for check in checks:
            problem = getattr(check, "problem", lambda value: None)(value)
            if problem is not None:
                yield problem
                return
        yield from problems(inner, value)
    elif origin in (typing.Union, types.UnionType):
        fitting = [option for option in typing.get_args(hint) if _is_kind(value, option)]
        messages = [list(problems(option, value)) for option in fitting]
        if messages and all(messages):
            yield messages[0][0]
    elif isinstance(value, list | tuple) and typing.get_args(hint):
        kinds = [kind for kind in typing.get_args(hint) if kind is not Ellipsis]
        for position, item in enumerate(value):
            for problem in problems(kinds[min(position, len(kinds) - 1)], item):
                yield problem if problem.startswith("each") else f"each item {problem}"
                return


def _is_kind(value: Any, hint: Any) -> bool:
    """Whether a value has the basic type of an option of a union."""
    if typing.get_origin(hint) is Annotated:
        return _is_kind(value, typing.get_args(hint)[0])
    kind = typing.get_origin(hint) or hint
    kinds = {float: (int, float), list: (list, tuple), tuple: (list, tuple)}.get(kind, kind)
    return isinstance(kinds, type | tuple) and isinstance(value, kinds)


def check_settings(config: Any, name: Callable[[str], str]) -> None:
    """Raise ConfigError for the first field of a dataclass outside its range.

    name: maps a field name to the setting that the user types.
    """
    cls: Any = type(config)
    hints = _hints(cls)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for problem in problems(hints[field.name], value):
            raise ConfigError(_sentence(name(field.name), value, problem))


def argument_problem(function: Callable[..., Any], key: str, value: Any, name: str) -> str | None:
    """Message if `value` is outside the annotated range of argument `key`, else None."""
    try:
        hint = _hints(function).get(key)
    except (NameError, TypeError, AttributeError):
        return None
    problem = next(problems(hint, value), None)
    return None if problem is None else _sentence(name, value, problem)


def ranged(init: InitT) -> InitT:
    """Decorate a constructor to raise ConfigError for arguments outside their ranges."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(TypeError):  # let `init` report wrong arguments
            arguments = signature.bind(*args, **kwargs).arguments
            for key, value in arguments.items():
                problem = argument_problem(init, key, value, key)
                if problem is not None:
                    raise ConfigError(problem)
        init(*args, **kwargs)

    return typing.cast(InitT, checked)


@functools.cache
def _hints(thing: Any) -> dict[str, Any]:
    return typing.get_type_hints(thing, include_extras=True)


def _sentence(name: str, value: Any, problem: str) -> str:
    shown = f"{value:g}" if isinstance(value, float) else f"{value}"
    colon = ":" * problem.startswith("each")
    return f"{name}={shown}{colon} {problem}" + ("" if problem[-1] in ".?" else ".")


def _text(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
