"""JSON objects as typed dataclasses: tolerant reading, lossless writing.

A field's annotation defines its validation: `Annotated[float, percent]` calls `percent`.
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Annotated, Any, Self

from kdrun.runs.shape import count, number, percent, points, whole

Percent = Annotated[float, percent]
Points = Annotated[float, points]
Count = Annotated[float, count]
Size = Annotated[int, count]
Number = Annotated[float, number]
Seed = Annotated[int, whole]
# Field metadata: move an invalid value into `extra` instead of raising.
LENIENT = {"lenient": True}


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object. Falsy if empty or absent.

    extra: unknown keys, and invalid values of lenient fields.
    layout: key → whether it was null, in the order read; None for an object not read from JSON.
    """

    extra: dict[str, Any] = field(default_factory=dict, repr=False)
    layout: Mapping[str, bool] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_dict(cls, values: Any, check: bool = True) -> Self:
        """Parse an object; missing keys and nulls take the field's default.

        check: raise ValueError for an invalid value; if false, move it into `extra`.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__} is not an object")
        kind: type[Record] = cls
        hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in values.items():
            if key not in hints:
                extra[key] = value
            elif value is not None:
                hint, lenient = hints[key]
                try:
                    known[key] = _convert(hint, value, check)
                except ValueError as error:
                    if check and not lenient:
                        raise ValueError(f"{key}: {error}") from None
                    extra[key] = value
        layout = {key: value is None for key, value in values.items()}
        return cls(**known, extra=extra, layout=layout)

    def to_dict(self, *, flat: bool = False) -> dict[str, Any]:
        """The JSON object with the keys it was read with, or all non-empty fields if built in code.

        flat: join nested keys (`student.test.top1`, `teachers.0.name`) into one table row. Lists
        of plain values become tuples, so that pandas can group by them.
        """
        layout = self.layout or {}
        names = [item.name for item in fields(self) if item.name not in ("extra", "layout")]
        keys = dict.fromkeys([*layout, *names, *self.extra])
        written: dict[str, Any] = {}
        for key in keys:
            value = self.extra[key] if key in self.extra else getattr(self, key)
            empty = value in (None, (), {}) or (isinstance(value, Record) and not value)
            if layout.get(key) and empty:
                written[key] = None
            elif key in layout or not empty:
                written[key] = _plain(value)
        return dict(_leaves(written)) if flat else written

    def __bool__(self) -> bool:
        return bool(self.extra) or any(
            getattr(self, item.name) not in (None, (), {})
            and (not isinstance(value := getattr(self, item.name), Record) or bool(value))
            for item in fields(self)
            if item.name not in ("extra", "layout")
        )


@cache
def _hints(kind: type[Record]) -> dict[str, tuple[Any, bool]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        item.name: (hints[item.name], bool(item.metadata.get("lenient")))
        for item in fields(kind)
        if item.name not in ("extra", "layout")
    }


def _convert(hint: Any, value: Any, check: bool) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        (hint,) = (arg for arg in args if arg is not type(None))
        return _convert(hint, value, check)
    if origin is Annotated:
        if not args[1](value):
            raise ValueError(f"{value!r} is out of range")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return tuple(_convert(args[0], element, check) for element in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return {key: _convert(args[1], element, check) for key, element in value.items()}
    if issubclass(hint, Record):
        return hint.from_dict(value, check)
    if not isinstance(value, hint):
        raise ValueError(f"{value!r} is not a {hint.__name__}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for nested objects and lists of objects."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value):
            yield from _leaves({str(i): entry for i, entry in enumerate(value)}, f"{name}.")
        else:
            yield name, tuple(value) if isinstance(value, list) else value
