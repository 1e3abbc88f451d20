"""The documentation of a class or function, read from its source file without importing it."""

import ast
import importlib.util
import inspect
import os
from pathlib import Path


def docstring(target: str) -> str | None:
    """The docstring of the dotted path `target`; None when its source cannot be found."""
    module, _, name = target.rpartition(".")
    path = _source_file(module)
    if path is None:
        return None
    return _in_file(path, module, name, depth=3)


def _in_file(path: Path, module: str, name: str, depth: int) -> str | None:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            text = ast.get_docstring(node)
            return inspect.cleandoc(text) if text else None
    for node in tree.body:  # what is imported here is defined elsewhere
        if isinstance(node, ast.ImportFrom) and depth:
            for alias in node.names:
                if name in (alias.asname or alias.name, alias.name) or alias.name == "*":
                    origin = _origin(node, module, path)
                    found = _source_file(origin)
                    own = name if alias.name == "*" else alias.name
                    text = _in_file(found, origin, own, depth - 1) if found else None
                    if text is not None:
                        return text
    return None


def _origin(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The absolute name of the module that an import statement in `module` names."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    drop = node.level - 1 if path.name == "__init__.py" else node.level
    parents = package[: len(package) - drop]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _source_file(module: str) -> Path | None:
    """The file of a module, found by its path: only the top package is looked up, none is run."""
    top, *rest = module.split(".")
    folders = _top_folders(top)
    if not rest:
        candidates = [folder / "__init__.py" for folder in folders]
        candidates += [Path(os.getcwd()) / f"{top}.py"]
    else:
        inner = "/".join(rest)
        candidates = [folder / f"{inner}.py" for folder in folders]
        candidates += [folder / inner / "__init__.py" for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


def _top_folders(top: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    found = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    return [Path(os.getcwd()) / top, *found]
