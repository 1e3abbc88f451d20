"""Placeholders for classes and functions of a weights file, which are never called."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InertClass:
    """The dotted name of a class or function that is not called."""

    name: str


@dataclass(eq=False)
class Inert:
    """Replaces an object of a class, or the result of a function, that is not called.

    kind: dotted name. args: constructor arguments. state: pickled state. items: values appended to
    it as to a list, or pairs set as in a dictionary.
    """

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
