"""The rules of the tree: who may import whom, what is imported early, how large things may grow."""

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kdrun"

# A package may import from its own row and from rows below it.
LAYERS = [
    {"api", "cli", "commands"},
    {"sweeps"},
    {"benchmarking"},
    {"distillation", "evaluation", "deploy"},
    {"engine", "schemes", "teachers", "runs", "report", "ui"},
    {"losses", "models", "data", "weights"},
    {"own_code"},
    {"config"},
    {"recipes"},
    {
        "errors",
        "types",
        "files",
        "ranges",
        "csv_tables",
        "seeds",
        "vision",
        "world",
        "checksums",
        "limits",
        "removal",
        "ownership",
        "markdown",
        "variables",
        "user_code",
        "uncompiled",
    }
    | {"__init__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# run(), not a library call: the only file that may write to standard output beside kdrun/ui
PRINTS = {"cli/output.py"}


@functools.cache
def sources() -> dict[Path, ast.Module]:
    """Every module of the package, parsed."""
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def package_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def walk(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node of a file but those that are for types alone."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from ast.walk(node)


def imported(tree: ast.Module) -> set[str]:
    """First-level names under kdrun that a file imports, anywhere in it but for types alone."""
    names = set()
    for node in walk(tree):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
            if node.module == "kdrun":
                modules = [f"kdrun.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        names |= {m.split(".")[1] for m in modules if m.startswith("kdrun.")}
    return names


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path} imports kdrun.{other}"
        for path, tree in sources().items()
        # but for the doors: `python -m kdrun` and `import kdrun`
        if (own := package_of(path)) not in ("__main__", "__init__")
        for other in imported(tree) & set(LEVEL)
        if LEVEL[other] < LEVEL[own]
    ]
    assert not wrong


def test_every_package_has_a_level() -> None:
    known = set(LEVEL) | {"__main__"}
    assert {package_of(path) for path in sources()} <= known


def test_files_and_functions_stay_small() -> None:
    long_files = [str(path) for path in sources() if path.read_text().count("\n") > 500]
    assert not long_files, "does each have one subject?"
    long_functions = [
        f"{path}:{node.lineno} {node.name} has {size} lines"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (size := (node.end_lineno or node.lineno) - node.lineno + 1) > 60
    ]
    assert not long_functions


def test_only_ui_prints() -> None:
    printing = [
        f"{name}:{node.lineno}"
        for path, tree in sources().items()
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith("ui/")
        if name not in PRINTS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "print"
    ]
    assert not printing


def test_below_stages_nothing_sees_omegaconf() -> None:
    allowed = {
        "cli",
        "commands",
        "distillation",
        "evaluation",
        "deploy",
        "benchmarking",
        "sweeps",
        "config",
        "runs",
    }
    for path in sources():
        if package_of(path) not in allowed:
            text = path.read_text()
            assert "omegaconf" not in text, path
            assert "import hydra" not in text, path


def test_import_and_help_need_no_torch() -> None:
    code = (
        "import sys, kdrun, kdrun.cli.main\n"
        "try:\n    kdrun.cli.main.main(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wheel_lists_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert listed == there | {"kdrun.configs"}


# The only modules that may delete, and those that may give a file a name that is taken: they write
# under another name first. Everything else calls them.
DELETES = {"removal.py"}
RENAMES = {"files.py", "engine/checkpoint.py", "data/decoding/cache.py"}
WRITES = {
    "deploy/formats.py",  # into hidden files of `published_own`
    "deploy/quantise.py",  # the same
    "deploy/unsigned_weights.py",  # the same
    "ui/reporter.py",  # appends to run.log
    "config/trust.py",  # appends to the list of trusted modules
    "files.py",
    "engine/checkpoint.py",
    "data/decoding/cache.py",
    "data/decoding/unfinished.py",
}


def test_only_one_module_deletes() -> None:
    allowed = {"deletes": DELETES, "renames": RENAMES, "writes": WRITES}
    wrong = [
        f"{name}:{node.lineno} {kind}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (kind := _touches(node))
        if (name := path.relative_to(PACKAGE).as_posix()) not in allowed[kind]
    ]
    assert not wrong, "see kdrun/removal.py and kdrun/files.py"


def _touches(call: ast.Call) -> str:
    """What a call does to files, as far as its name says; empty for nothing."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
    if name in ("rmtree", "unlink", "rmdir", "removedirs") or (owner, name) == ("os", "remove"):
        return "deletes"
    if (owner, name) == ("shutil", "move"):
        return "deletes"
    moves = name in ("rename", "renames") or (owner, name) == ("os", "replace")
    if moves or (name == "replace" and len(call.args) == 1 and not call.keywords):
        return "renames"
    if name in ("write_text", "write_bytes", "savez", "truncate"):
        return "writes"
    opens = isinstance(call.func, ast.Name) and call.func.id == "open"
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return "writes" if opens and any(set(str(text)) & set("wax+") for text in texts) else ""


def test_the_deletion_rule_is_seen_in_code_that_breaks_it() -> None:
    for code in ("p.unlink()", "shutil.rmtree(p)", "os.remove(p)", "p.rmdir()"):
        assert _touches(ast.parse(code, mode="eval").body) == "deletes"  # type: ignore[arg-type]
    for code in ("p.write_text(t)", "open(p, 'w')", "open(p, mode='ab')"):
        assert _touches(ast.parse(code, mode="eval").body) == "writes"  # type: ignore[arg-type]
    for code in ("p.replace(q)", "os.replace(p, q)", "p.rename(q)"):
        assert _touches(ast.parse(code, mode="eval").body) == "renames"  # type: ignore[arg-type]
    for code in ("s.replace('a', 'b')", "open(p)", "names.remove(x)", "replace(config, a=1)"):
        assert _touches(ast.parse(code, mode="eval").body) == ""  # type: ignore[arg-type]
