"""`precision: auto` in a typed configuration; `kdrun.engine.speed` decides what it stands for."""

from dataclasses import is_dataclass, replace
from typing import Any, TypeVar, cast

AUTO = "auto"
ConfigT = TypeVar("ConfigT")


def holds_auto(config: Any) -> bool:
    """Whether some precision in a configuration is `auto`."""
    if isinstance(config, tuple):
        return any(holds_auto(each) for each in config)
    if not is_dataclass(config):
        return False
    values = vars(config)
    return values.get("precision") == AUTO or any(holds_auto(each) for each in values.values())


def with_precision(config: ConfigT, precision: str) -> ConfigT:
    """The configuration with `precision` in place of every `auto`."""
    return cast(ConfigT, _replaced(config, precision))


def _replaced(config: Any, precision: str) -> Any:
    if isinstance(config, tuple):
        return tuple(_replaced(each, precision) for each in config)
    if not holds_auto(config):
        return config
    changes = {name: _replaced(value, precision) for name, value in vars(config).items()}
    if changes.get("precision") == AUTO:
        changes["precision"] = precision
    return replace(config, **changes)
