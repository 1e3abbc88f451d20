"""The verbs there are, read from the modules of `kdrun.commands`."""

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kdrun import commands
from kdrun.cli.config_groups import package_dir


@cache
def summaries() -> dict[str, str]:
    """Verb → its line on the front page, in that page's order.

    ORDER and SUMMARY are read from the source: no module is imported, whatever it imports itself.
    """
    found: list[tuple[int, str, str]] = []
    for folder in commands.__path__:
        for path in Path(folder).glob("[a-z]*.py"):
            constants = _constants(path)
            name = path.stem.replace("_", "-")
            found.append((constants["ORDER"], name, constants["SUMMARY"]))
    return {name: summary for _, name, summary in sorted(found)}


def names() -> list[str]:
    """All verbs, in the order of the front page."""
    return list(summaries())


def module(verb: str) -> ModuleType:
    """The module of a verb that exists."""
    return importlib.import_module(f"kdrun.commands.{_module_name(verb)}")


@cache
def config_names() -> dict[str, str]:
    """Verb → its YAML below `configs/`, for the verbs that have one."""
    there = {path.stem for path in package_dir().glob("*.yaml")}
    return {name: _module_name(name) for name in names() if _module_name(name) in there}


def _constants(path: Path) -> dict[str, Any]:
    """The literals that a module assigns at its top level."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            found |= dict.fromkeys(targets, node.value.value)
    return found


def _module_name(verb: str) -> str:
    return verb.replace("-", "_")
