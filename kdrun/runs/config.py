"""Read `config.yaml` of a run folder, which may be outdated, damaged or untrusted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdrun.checksums import find_fault
from kdrun.config import trust
from kdrun.config.plain import require_plain
from kdrun.errors import ConfigError, KdrunError
from kdrun.limits import LOADER, read_plain_yaml

CONFIG = "config.yaml"
T = TypeVar("T")


def read_config(folder: Path, parse: Callable[[DictConfig], T]) -> T:
    """The typed configuration of a run: its `config.yaml`, converted by `parse`.

    Raises ConfigError if the file is missing or damaged, or calls code that is not allowed.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not the folder of a run, or of one that was stopped before it began (no "
            f"{CONFIG}): type its command again."
        )
    fault = find_fault(folder, [CONFIG])
    if fault:
        raise ConfigError(fault)
    try:
        text = read_plain_yaml(path)
        values = yaml.load(text, Loader=LOADER)
        if not isinstance(values, dict):
            raise ValueError("it is no group of settings")
        require_plain(values, str(path))  # before OmegaConf sees the text, which may resolve it
        cfg = OmegaConf.create(values)
    except (
        OSError,
        ValueError,
        OverflowError,
        yaml.YAMLError,
        OmegaConfBaseException,
        RecursionError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path} cannot be read: {reason}.") from None
    trust.require(OmegaConf.to_container(cfg), str(path))
    return parsed(parse, cfg, str(path))


def parsed(parse: Callable[[Any], T], values: Any, source: str) -> T:
    """Convert values that are read from the file `source` instead of composed.

    Raises ConfigError if a setting is missing or has another type than this kdrun writes.
    """
    try:
        return parse(values)
    except KdrunError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        OmegaConfBaseException,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{source} is not what this kdrun writes ({type(error).__name__}: {reason}): type the "
            "run's command again."
        ) from None
