"""Flatten the content of a file to tensors with dotted names.

Dictionaries, lists, pickled modules and attributes of placeholders each add a part to the name:
`{"model": {"conv.weight": ...}, "model_ema": {...}}` becomes `model.conv.weight` and so on.
Skips optimiser states.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kdrun.errors import CheckpointError
from kdrun.weights.inert import Inert
from kdrun.weights.lazy import AnyTensor, is_tensor

MOST_DEPTH = 40
MOST_TENSORS = 500_000
MOST_ITEMS = 10_000  # of a list that are searched


@dataclass
class FlatFile:
    """The tensors of a file by dotted name, in file order.

    skipped: name of a skipped optimiser → number of its tensors.
    """

    tensors: dict[str, AnyTensor] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


def flatten(content: Any) -> FlatFile:
    """All tensors of a file's content. Raises CheckpointError for too many."""
    flat = FlatFile()
    visited: set[int] = set()
    stack: list[Iterator[tuple[str, Any]]] = [iter([("", content)])]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        name, value = entry
        if is_tensor(value):
            flat.tensors.setdefault(name, value)
            if len(flat.tensors) > MOST_TENSORS:
                raise CheckpointError(f"The file contains more than {MOST_TENSORS:,} tensors.")
            continue
        if not isinstance(value, dict | list | tuple | Inert) or len(stack) > MOST_DEPTH:
            continue
        if id(value) in visited:  # shared or circular
            continue
        visited.add(id(value))
        if _is_optimiser(value):
            flat.skipped[name or "optimizer"] = _count(value)
            continue
        prefix = f"{name}." if name else ""
        stack.append(_named(prefix, value))
    return flat


def _named(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    for key, inner in _children(value):
        yield f"{prefix}{key}", inner


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str | int):
                yield str(key), inner
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value[:MOST_ITEMS]):
            yield str(number), inner
    elif isinstance(value, Inert):
        state = value.state
        if isinstance(state, tuple) and len(state) == 2:  # classes with __slots__
            state = {**(state[0] or {}), **(state[1] or {})} if _dicts(state) else {}
        if isinstance(state, dict) and isinstance(state.get("_modules"), dict):
            yield from _module(state)
        elif isinstance(state, dict):
            yield from _children(state)
        yield from (
            entry
            for entry in value.items
            if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
        )


def _dicts(pair: tuple[Any, ...]) -> bool:
    return all(part is None or isinstance(part, dict) for part in pair)


def _module(state: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of the `state_dict()` of a pickled nn.Module."""
    transient = state.get("_non_persistent_buffers_set")
    left_out = set(filter(_is_text, transient)) if isinstance(transient, list) else set()
    for group in ("_parameters", "_buffers", "_modules"):
        values = state.get(group)
        for key, inner in values.items() if isinstance(values, dict) else ():
            if isinstance(key, str) and not (group == "_buffers" and key in left_out):
                yield key, inner


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_optimiser(value: Any) -> bool:
    return isinstance(value, dict) and "param_groups" in value and "state" in value


def _count(optimiser: Any) -> int:
    states = optimiser["state"]
    values = states.values() if isinstance(states, dict) else ()
    return sum(
        is_tensor(value) for state in values if isinstance(state, dict) for value in state.values()
    )
