"""Where kdrun's own YAML files are."""

import importlib
from pathlib import Path


def shipped_configs() -> Path:
    """The folder `configs/` of the installed package or checkout."""
    return Path(next(iter(importlib.import_module("kdrun.configs").__path__)))
