"""Builds objects from a dotted path and plain arguments; nothing else does.

Arguments are checked against the signature first, so that a misspelt or missing one gives an error
that lists the existing names, and nothing is half built.
"""

import importlib
import inspect
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from kdrun.config import trust
from kdrun.config.readers import is_number
from kdrun.errors import ConfigError, MissingExtraError, did_you_mean
from kdrun.ranges import argument_problem
from kdrun.user_code import user_code_error

# Optional packages that shipped configs use → the extra that installs each.
EXTRAS = {name: name for name in ("timm", "tensorboard", "wandb", "mlflow", "trackio")}

# What other tools call `checkpoint`.
CHECKPOINT_WORDS = frozenset(
    (
        *("weights", "weights_file", "weights_path", "pretrained", "pretrained_path"),
        *("pretrained_weights", "init", "init_from", "init_weights", "initial_weights"),
        *("init_checkpoint", "initialize", "initialise", "ckpt", "ckpt_path", "checkpoint_path"),
        *("checkpoints", "from_checkpoint", "load", "load_from", "load_path", "load_weights"),
        *("resume", "resume_from", "restore", "restore_from", "start", "start_from", "from_file"),
        *("state_dict", "finetune", "finetune_from", "fine_tune", "warm_start", "model_path"),
        *("path", "file"),
    )
)


def locate(path: str, where: str) -> Callable[..., Any]:
    """The class, function or class method at the dotted `path`. where: the setting, for errors.

    Raises ConfigError for one that may not be called (see `kdrun.config.trust`).
    """
    trust.check(path, where)
    module_name, _, attribute = path.rpartition(".")
    own = not trust.is_shipped(path)
    if own:
        _prepare_import()
    try:
        owner = _import_owner(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}.") is False:
            _explain_import(error)
        missing = (error.name or "").split(".")[0]
        if missing in EXTRAS:
            raise MissingExtraError(missing, EXTRAS[missing], where) from None
        raise ConfigError(
            f"{where}._target_={path}: there is no module '{error.name}'. "
            "Install it, or run from the folder that holds it."
        ) from None
    found = getattr(owner, attribute, None)
    if found is None:
        hint = did_you_mean(attribute, dir(owner))
        raise ConfigError(f"{where}._target_={path}: '{module_name}' has no '{attribute}'.{hint}")
    if not callable(found):
        raise ConfigError(f"{where}._target_={path} is neither a class nor a function.")
    return typing.cast(Callable[..., Any], found)


def _import_owner(path: str) -> types.ModuleType | type:
    """The module at the dotted `path`, or the class in a module (`package.Network`).

    Raises ModuleNotFoundError if there is neither.
    """
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        module_name, _, name = path.rpartition(".")
        if error.name != path or not module_name:
            raise
        found = getattr(importlib.import_module(module_name), name, None)
        if not isinstance(found, type):
            raise
        return found


def _prepare_import() -> None:
    """Make the user's modules importable from the working directory.

    Most of them import torchvision, which may need a repair (see `kdrun.vision`).
    """
    from kdrun.vision import repair_torchvision  # imports torch

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    repair_torchvision()


def _explain_import(error: ModuleNotFoundError) -> None:
    """Raise ConfigError if the user's module imports a package that is not installed."""
    own = user_code_error(error)
    top = (error.name or "").split(".")[0]
    if own is not None and top not in EXTRAS:
        raise ConfigError(f"{own}\nInstall what it imports, e.g. pip install {top}") from None


def call(path: str, kwargs: dict[str, Any], where: str, **offered: Any) -> Any:
    """Call the target with `kwargs`, plus the arguments in `offered` that its signature names.

    Raises ConfigError naming every argument that is unknown, missing or of the wrong type.
    """
    target = locate(path, where)
    parameters = _parameters(target)
    check_arguments(target, kwargs, where, offered=set(offered))
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    extra = {k: v for k, v in offered.items() if (k in parameters or takes_any) and k not in kwargs}
    try:
        return target(**kwargs, **extra)
    except (TypeError, ValueError, ZeroDivisionError) as error:  # invalid values
        own = user_code_error(error)
        if own is not None:
            raise ConfigError(
                f"{where}: {path} cannot be built from these settings. {own}"
            ) from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{where}: {path} cannot be built from these settings: {error} "
            f"(raised at {os.path.basename(last.filename)}:{last.lineno})."
        ) from error


def check_arguments(
    target: Callable[..., Any], kwargs: dict[str, Any], where: str, offered: set[str] | None = None
) -> None:
    """Raise ConfigError for arguments that are unknown, missing or of the wrong type or range."""
    parameters = _parameters(target)
    names = {
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    problems = []
    for key, value in kwargs.items():
        if key in names:
            problems += _type_problem(target, key, value, where)
        elif not takes_any:
            hint = did_you_mean(key, names) or f" It takes: {', '.join(sorted(names))}."
            if where in ("student", "teacher") and key.lower() in CHECKPOINT_WORDS:
                hint = f" The weights it starts from are {where}.checkpoint={kwargs[key]}."
            problems.append(f"{where}.{key} does not exist.{hint}")
    given = set(kwargs) | (offered or set())
    for name in sorted(names - given):
        if parameters[name].default is inspect.Parameter.empty:
            problems.append(f"{where}.{name} has no value: add +{where}.{name}=... to the command.")
    if problems:
        raise ConfigError(" ".join(problems))


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class or function.

    None for a class without a constructor: the signature of `nn.Module` takes any, and it none.
    """
    if inspect.isclass(target):
        owner = next(base for base in target.__mro__ if "__init__" in vars(base))
        if owner.__module__ == "torch.nn.modules.module":
            return {}
    return inspect.signature(target).parameters


def _type_problem(target: Callable[..., Any], key: str, value: Any, where: str) -> list[str]:
    """A sentence if `value` does not match the annotation of `key`, or is out of range."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return []
    hint = hints.get(key)
    if hint is None or _fits(value, hint):
        outside = argument_problem(function, key, value, f"{where}.{key}")
        return [] if outside is None else [outside]
    name = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
    return [f"{where}.{key}={value!r} is not of type {name}."]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value matches the annotation; unknown annotations always match."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return is_number(value)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple) or hint in (list, tuple):
        elements = typing.get_args(hint)
        one_kind = elements and (origin is list or elements[1:] == (...,))
        return isinstance(value, list | tuple) and (
            not one_kind or all(_fits(element, elements[0]) for element in value)
        )
    return True
