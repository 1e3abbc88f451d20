"""Where YAML files are: kdrun's own, and the user's."""

import importlib
from pathlib import Path


def shipped_configs() -> Path:
    """The folder `configs/` of the installed package or checkout."""
    return Path(next(iter(importlib.import_module("kdrun.configs").__path__)))


def config_folders(config_dir: Path | None = None) -> list[Path]:
    """The folders searched for options, kdrun's own first. config_dir: of the user's."""
    return [shipped_configs(), *([] if config_dir is None else [config_dir])]
