"""The verbs there are, read from the modules of `kdrun.commands`."""

import ast
import importlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kdrun import commands
from kdrun.config.shipped import shipped_configs


@cache
def _declarations() -> dict[str, dict[str, Any]]:
    """Verb → the literals of its module, in the order of the front page.

    They are read from the source: no module is imported, whatever it imports itself.
    """
    entries: list[tuple[int, str, dict[str, Any]]] = []
    for folder in commands.__path__:
        for path in Path(folder).glob("[a-z]*.py"):
            literals = _literals(path)
            entries.append((literals["ORDER"], path.stem.replace("_", "-"), literals))
    return {name: literals for _, name, literals in sorted(entries, key=lambda entry: entry[:2])}


def constants(verb: str) -> dict[str, Any]:
    """The literals of a verb's module: ORDER, SUMMARY, FLAGS, EXAMPLES and so on."""
    return _declarations()[verb]


def summaries() -> dict[str, str]:
    """Verb → its line on the front page, in that page's order."""
    return {name: literals["SUMMARY"] for name, literals in _declarations().items()}


def names() -> list[str]:
    """All verbs, in the order of the front page."""
    return list(summaries())


def module(verb: str) -> ModuleType:
    """The module of a verb that exists."""
    return importlib.import_module(f"kdrun.commands.{_module_name(verb)}")


@cache
def config_names() -> dict[str, str]:
    """Verb → its YAML below `configs/`, for the verbs that have one."""
    there = {path.stem for path in shipped_configs().glob("*.yaml")}
    return {name: _module_name(name) for name in names() if _module_name(name) in there}


def _literals(path: Path) -> dict[str, Any]:
    """The literals that a module assigns at its top level."""
    literals: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            with suppress(ValueError):  # not a literal
                literals |= dict.fromkeys(names, ast.literal_eval(node.value))
    return literals


def forget() -> None:
    """Look for verbs again, for a program that adds one."""
    _declarations.cache_clear()
    config_names.cache_clear()


def _module_name(verb: str) -> str:
    return verb.replace("-", "_")
