"""Which code a configuration may call: kdrun's, what the user named, what the user trusts.

Run folders, cards and sweeps may come from an untrusted source, and their `_target_`s name code. A
dotted path is called only when

- kdrun ships it: it is a target in kdrun's configs, for the same purpose, or one of torchvision's
  classifiers (functions of these libraries that fetch or run code are excluded);
- the user named it in this command, by an override or in a `--config-dir`;
- the user named it in an earlier command on this machine. That is recorded outside any run folder,
  with the path of the module's file, and only for the user's own modules: what a function of an
  installed library does depends on its arguments;
- the user trusts its module: `--trust my_nets`, or the environment variable KDRUN_TRUST.

Named targets stay allowed for the life of the process, as imported modules stay imported.
"""

import contextlib
import importlib
import importlib.machinery
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kdrun.config.shipped import shipped_configs
from kdrun.errors import ConfigError
from kdrun.variables import variable

VARIABLE = "KDRUN_TRUST"
# Targets that kdrun writes into cards and that no config names.
WRITTEN = ("kdrun.models.reused_classifier.ReusedClassifier",)
# First word of the setting that names a target → package of kdrun's targets for it.
PLACES = {
    "dataset": "kdrun.data.",
    "loss": "kdrun.losses.",
    "scheme": "kdrun.schemes.",
    "logger": "kdrun.report.",
}
NETWORKS = "kdrun.models."
TORCHVISION = "torchvision.models."

_named: set[str] = set()
_sources: list[str] = []  # untrusted files whose settings are being read


def targets_in(values: Any) -> Iterator[str]:
    """Every dotted path in plain data: the texts under `_target_`, `target`, `student_target`."""
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, str):
                if str(key).strip("_").endswith("target") and "." in value:
                    yield value
            else:
                yield from targets_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from targets_in(value)


def name(targets: Iterable[str]) -> None:
    """Allow targets that the user named, in this and in later commands.

    Within `untrusted_source`: raises ConfigError unless they are already allowed.
    """
    if _sources:
        require({"targets": [{"target": target} for target in targets]}, _sources[-1])
        return
    new = {target for target in targets if not is_shipped(target)} - _named
    _named.update(new)
    remember({line for target in new if (line := _own_line(target)) is not None})


def require(values: Any, source: str) -> None:
    """Raise ConfigError unless all targets in `values`, read from `source`, are allowed."""
    for target in targets_in(values):
        if not (is_shipped(target) or is_allowed(target)):
            raise ConfigError(
                f"{source} calls {target}, which is neither part of kdrun nor named by you: it "
                f"could be any code. If you trust it, add --trust {target.split('.')[0]} to the "
                f"command (or set {VARIABLE})."
            )


def check(target: str, where: str) -> None:
    """Raise ConfigError unless the target is allowed for the setting `where`."""
    # scheme.peers and scheme.assistants are networks
    place = NETWORKS if where.startswith("scheme.") else PLACES.get(where.split(".")[0], NETWORKS)
    shipped = is_shipped(target)
    if (shipped and target.startswith((place, TORCHVISION))) or is_allowed(target):
        return
    if shipped:
        raise ConfigError(f"{where}._target_={target} cannot be used for {where}.")
    require({"_target_": target}, f"{where}._target_")


def is_shipped(target: str) -> bool:
    """Whether the target is part of kdrun, or one of torchvision's classifiers."""
    if target.startswith(TORCHVISION):
        from kdrun.vision import classifier_names  # imports torch

        return target.removeprefix(TORCHVISION) in classifier_names()
    return target in _shipped()


def is_allowed(target: str) -> bool:
    """Whether the user named the target, now or in an earlier command, or trusts its module."""
    if target in _named or any(_is_below(target, module) for module in trusted_modules()):
        return True
    line = _own_line(target)
    return line is not None and line in _remembered()


def trusted_modules() -> list[str]:
    """The modules that `--trust` and the environment name."""
    return [word for word in re.split(r"[,\s]+", os.environ.get(VARIABLE, "")) if word]


def current_source() -> str | None:
    """The untrusted file whose settings are being composed; None for a typed command."""
    return _sources[-1] if _sources else None


@contextlib.contextmanager
def untrusted_source(source: str) -> Iterator[None]:
    """Settings composed in this block come from the file `source`, not from the user."""
    _sources.append(source)
    try:
        yield
    finally:
        _sources.pop()


@contextlib.contextmanager
def trusting(modules: Iterable[str]) -> Iterator[None]:
    """Also trust these modules, in this block and in the processes it starts."""
    with variable(VARIABLE, ",".join([*trusted_modules(), *modules])):
        yield


def remember(lines: Iterable[str]) -> None:
    """Add lines to this user's record; a record that cannot be written is skipped."""
    new = [line for line in sorted(set(lines)) if line not in _remembered()]
    if not new:
        return
    with contextlib.suppress(OSError):
        path = _memory()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(path, "a", encoding="utf-8") as file:  # a few short lines: one write
            file.write("".join(f"{line}\n" for line in new))


def is_remembered(line: str) -> bool:
    """Whether `remember` recorded this line, in any process of this user on this machine."""
    return line in _remembered()


def _remembered() -> set[str]:
    try:
        return set(_memory().read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return set()


def state_folder() -> Path:
    """`~/.local/state/kdrun`, or below XDG_STATE_HOME: what is kept per user and machine."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "kdrun"


def _memory() -> Path:
    return state_folder() / "trusted"


def _own_line(target: str) -> str | None:
    """The record of a target in the user's own module; None for one of an installed library."""
    top = target.split(".")[0]
    if top == "kdrun":
        return None
    try:  # finds the file without importing it
        spec = importlib.machinery.PathFinder.find_spec(top, [os.getcwd(), *sys.path])
    except (ImportError, ValueError, OSError):
        return None
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    origin = next((os.path.realpath(place) for place in places if place), None)
    if origin is None or "\n" in f"{target}{origin}" or _is_installed(origin):
        return None
    return f"target {target} {origin}"


def _is_installed(origin: str) -> bool:
    roots = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {entry for entry in sys.path if "site-packages" in entry or "dist-packages" in entry}
    return any(Path(origin).is_relative_to(os.path.realpath(root)) for root in roots)


def _is_below(target: str, module: str) -> bool:
    return target == module or target.startswith(f"{module}.")


@cache
def _shipped() -> frozenset[str]:
    """The targets in kdrun's configs, and those it writes into cards."""
    folder = shipped_configs()
    found = set(WRITTEN)
    for path in folder.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"^\s*_target_:\s*(kdrun\.[\w.]+)\s*(?:#.*)?$", text, re.MULTILINE))
    return frozenset(found)
