"""Digests of the user's own code: an edited network or loss counts as another one.

The code of a target is its function or class and everything that it uses by name, in the user's own
files. Comments, docstrings, layout and unrelated definitions do not count. Files are parsed, never
imported. Code that is found only while it runs (`getattr(module, name)`) is not followed, except
that `globals`, `eval` and the like make the whole module count.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from kdrun.config.trust import targets_in
from kdrun.files import canonical_hash, sha256_of
from kdrun.user_code import USER, owner

# Names whose use makes every definition of a module reachable.
DYNAMIC = {"globals", "locals", "vars", "eval", "exec", "__import__", "import_module"}


def code_digests(values: Any) -> dict[str, str]:
    """Target → digest of its code, for the targets in plain data that are the user's own."""
    targets = {target for target in targets_in(values) if not target.startswith("kdrun.")}
    digests = {target: _digest(target) for target in sorted(targets)}
    return {target: digest for target, digest in digests.items() if digest is not None}


def code_entry(values: Any) -> dict[str, dict[str, str]]:
    """`code_digests` as an entry of a key or card; empty without own code, as in older ones."""
    digests = code_digests(values)
    return {"code": digests} if digests else {}


def edited(known: dict[str, str]) -> list[str]:
    """The targets whose code is there and is no longer what it was. known: target → digest."""
    return [target for target, digest in known.items() if _digest(target) not in (digest, None)]


def edited_sentence(known: dict[str, str], since: str) -> str | None:
    """A warning that names the edited targets; None without any. since: what happened before."""
    targets = edited(known)
    if not targets:
        return None
    have = "has" if len(targets) == 1 else "have"
    return f"The code of {', '.join(targets)} {have} been edited since {since}."


def _digest(target: str) -> str | None:
    """None for a target that is not in the user's files."""
    collected = _Collected()
    collected.add_path(target)
    return canonical_hash(sorted(collected.parts)) if collected.parts else None


@dataclass(frozen=True)
class _Module:
    """Top-level statements of a source file.

    binds: name → statements that define or change it. always: those with other effects.
    stars: modules whose names are all imported.
    """

    package: str
    binds: dict[str, list[ast.stmt]]
    always: list[ast.stmt]
    stars: list[str]


@dataclass
class _Collected:
    """The statements that targets depend on, as (module, text)."""

    parts: set[tuple[str, str]] = field(default_factory=set)
    seen: set[tuple[str, str | None]] = field(default_factory=set)

    def add_path(self, path: str) -> None:
        """A dotted path: a module, or a name in one, or in a class."""
        names = path.split(".")
        for end in range(len(names), 0, -1):
            module = ".".join(names[:end])
            file = _own_file(module)
            if file is not None:
                self._add(module, file, names[end] if end < len(names) else None)
                return

    def _add(self, name: str, file: Path, definition: str | None) -> None:
        """One definition of a module; None: all of them."""
        if (name, definition) in self.seen:
            return
        self.seen.add((name, definition))
        module = _read(name, file)
        if module is None:
            self.parts.add((name, sha256_of(file)))
            return
        if definition in module.binds:
            statements = module.binds[definition]
        elif definition is not None and self._add_from_stars(module, definition):
            return
        else:  # all, also where the name is made while the module runs
            statements = [s for each in module.binds.values() for s in each]
        for statement in [*statements, *module.always]:
            self._add_statement(name, file, module, statement)

    def _add_from_stars(
        self, module: _Module, definition: str, passed: tuple[str, ...] = ()
    ) -> bool:
        """A name that `from x import *` may have brought; whether one did. passed: on the way."""
        for star in module.stars:
            if star in passed:
                continue
            file = _own_file(star)
            source = None if file is None else _read(star, file)
            if file is None or source is None:
                continue
            if definition in source.binds:
                self._add(star, file, definition)
                return True
            if self._add_from_stars(source, definition, (*passed, star)):
                return True
        return False

    def _add_statement(self, name: str, file: Path, module: _Module, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            self.parts.add((name, ast.unparse(statement)))
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id in module.binds:
                self._add(name, file, node.id)
            elif _is_dynamic(node):
                self._add(name, file, None)
            elif isinstance(node, ast.Name):
                self._add_from_stars(module, node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for path in _imported(node, module.package):
                    self.add_path(path)


def _is_dynamic(node: ast.AST) -> bool:
    """`globals`, but not the `eval` of `network.eval()`."""
    if isinstance(node, ast.Attribute):
        return node.attr == "import_module"
    return isinstance(node, ast.Name) and node.id in DYNAMIC


def _read(name: str, file: Path) -> _Module | None:
    """The module in a source file; None for one that is compiled or damaged."""
    try:
        status = file.stat()
        return _parse(name, file, status.st_mtime_ns, status.st_size)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


@lru_cache(maxsize=256)
def _parse(name: str, file: Path, modified: int, size: int) -> _Module | None:
    """modified, size: of the file, so that an edited one is parsed again."""
    if file.suffix != ".py":
        return None
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    module = _Module(package, {}, [], [])
    tree = _without_docstrings(ast.parse(file.read_bytes()))
    for statement in [each for whole in tree.body for each in _one_by_one(whole)]:
        if _is_main_block(statement):
            continue
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            module.stars.append(_absolute(statement, package))
            continue
        bound = set(_bound(statement))
        for each in bound:
            module.binds.setdefault(each, []).append(statement)
        if not bound and not isinstance(statement, ast.Pass):
            module.always.append(statement)
    return module


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _one_by_one(statement: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports; other statements as they are."""
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        module, level = statement.module, statement.level
        return [ast.ImportFrom(module, [alias], level) for alias in statement.names]
    return [statement]


def _is_main_block(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`, which does not run on import."""
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
    )


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines or changes."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:  # REGISTRY["a"] = f changes REGISTRY, Net.forward = f changes Net
            yield from _roots(target)
    else:
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
                yield from _bound_within(child)


def _bound_within(node: ast.AST) -> Iterator[str]:
    """Names bound in a block of a compound statement (`if`, `try`, `with`, `for`)."""
    if isinstance(node, ast.stmt):
        yield from _bound(node)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _bound_within(child)


def _roots(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _roots(element)
        return
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
        target = target.value
    if isinstance(target, ast.Name):
        yield target.id


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Absolute dotted paths of what an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = _absolute(node, package)
    return [f"{module}.{alias.name}" if alias.name != "*" else module for alias in node.names]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module of `from ... import`, absolute."""
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _own_file(module: str) -> Path | None:
    """The file of a module in the user's files, found without importing anything."""
    spec: ModuleSpec | None = None
    path: Iterable[str] = [os.getcwd(), *sys.path]
    names = module.split(".")
    try:
        for end in range(1, len(names) + 1):
            name = ".".join(names[:end])
            spec = PathFinder.find_spec(name, list(path))
            if spec is None and end == 1:
                spec = importlib.util.find_spec(name)  # packages installed in editable form
            if spec is None:
                return None
            path = spec.submodule_search_locations or []
    except (ImportError, ValueError, OSError, AttributeError):
        return None
    origin = None if spec is None else spec.origin
    if origin is None or not os.path.isfile(origin) or owner(origin) != USER:
        return None
    return Path(origin)
