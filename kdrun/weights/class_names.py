"""The class names that a weights file states: the order of the network's outputs.

`class_to_idx` as torchvision's ImageFolder has it, `classes`, `id2label` as in a `config.json` of
the Hugging Face hub, in the file itself, in its safetensors metadata or next to it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kdrun.files import read_json

LISTS = ("classes", "class_names", "label_names", "labels")
NUMBER_OF_NAME = ("class_to_idx", "label2id", "label_to_idx")
NAME_OF_NUMBER = ("idx_to_class", "id2label", "idx_to_label")
MOST_DEPTH = 3  # Lightning's hyper_parameters, mmlab's meta.dataset_meta


def stated_class_names(values: Any, path: Path) -> tuple[str, ...] | None:
    """The names in the order of the outputs; None if the file states none, or two orders.

    values: the content of the file. path: of the file, or of the index of its shards.
    """
    for source in (values, _metadata(path), _config(path)):
        found = set(_orders(source))
        if len(found) == 1:
            return found.pop()
    return None


def _orders(value: Any, depth: int = 0) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict) or depth > MOST_DEPTH:
        return
    for key, member in value.items():
        name = str(key).lower()
        if isinstance(member, str) and name in (*LISTS, *NUMBER_OF_NAME, *NAME_OF_NUMBER):
            try:
                member = json.loads(member)  # safetensors metadata are texts
            except (ValueError, RecursionError):
                continue
        order = None
        if name in LISTS:
            order = member if isinstance(member, list | tuple) else None
        elif name in NUMBER_OF_NAME and isinstance(member, dict):
            order = _in_order({str(number): text for text, number in member.items()})
        elif name in NAME_OF_NUMBER and isinstance(member, dict):
            order = _in_order({str(number): text for number, text in member.items()})
        elif isinstance(member, dict):
            yield from _orders(member, depth + 1)
        if order and all(isinstance(text, str | int) for text in order):
            names = tuple(str(text) for text in order)
            if len(set(names)) == len(names):
                yield names


def _in_order(names: dict[str, Any]) -> list[Any] | None:
    """The names by their numbers 0 to n-1; None for other numbers."""
    if set(names) != set(map(str, range(len(names)))):
        return None
    return [names[str(number)] for number in range(len(names))]


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return {}


def _config(path: Path) -> Any:
    try:
        return read_json(path.with_name("config.json"))
    except (OSError, ValueError, RecursionError):
        return {}
