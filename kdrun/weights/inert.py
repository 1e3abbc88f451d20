"""Placeholders for what a weights file names and nobody calls."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InertClass:
    """The dotted name of a class or function that is not called."""

    name: str


@dataclass(eq=False)
class Inert:
    """Stands for an object of a class or the result of a function that is not called.

    kind: its dotted name. args: what it would have been made from. state: what was set on it.
    items: what was put into it as into a list (values) or a dictionary (pairs).
    """

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
