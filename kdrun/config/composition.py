"""Hydra's compose API, and what it composes from besides YAML files."""

import secrets
import time
from contextlib import AbstractContextManager
from pathlib import Path

from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from kdrun.config.options import MODEL, NETWORK_GROUPS, model_names, nodes
from kdrun.config.shipped import config_folders

VERSION_BASE = "1.3"
STAMP = r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}"  # pattern of `stamp()`


def hydra_ready() -> AbstractContextManager[None]:
    """A block within which Hydra's compose API reads kdrun's configurations."""
    return initialize_config_module("kdrun.configs", version_base=VERSION_BASE)


def searchpath(config_dir: Path | None) -> list[str]:
    """The override that makes Hydra read the user's own options too; none without a folder."""
    if config_dir is None:
        return []
    escaped = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{escaped}']"]


def stamp() -> str:
    """A unique folder name that sorts by time: local time and random letters."""
    milliseconds = time.time_ns() // 1_000_000
    clock = time.strftime("%Y%m%d-%H%M%S", time.localtime(milliseconds // 1000))
    return f"{clock}-{milliseconds % 1000:03d}-{secrets.token_hex(3)}"


def register(config_dir: Path | None = None) -> None:
    """Register `${kdrun.stamp:}`, the schema's defaults, and the options of student and teacher.

    The stamp is constant within one process, as a sweep's folder must be. Each `model/NAME.yaml`,
    of kdrun or below `config_dir`, is an option NAME of both groups; a user's file in one of the
    groups takes precedence.
    """
    OmegaConf.register_new_resolver("kdrun.stamp", stamp, use_cache=True, replace=True)
    store = ConfigStore.instance()
    for name, node in nodes().items():
        if f"{name}.yaml" not in store.repo:
            store.store(name=name, node=node.values)
    folders = config_folders(config_dir)
    names = sorted({name for folder in folders for name in model_names(folder)})
    for group in NETWORK_GROUPS:
        _store_options(
            group,
            [
                name
                for name in names
                if config_dir is None or not (config_dir / group / f"{name}.yaml").is_file()
            ],
        )


_stored: dict[str, list[str]] = {}  # group → its options in Hydra's store


def _store_options(group: str, names: list[str]) -> None:
    """Make `names` the stored options of a group, in place of those stored before."""
    if _stored.get(group) == names:
        return
    store = ConfigStore.instance()
    present = store.repo.setdefault(group, {})
    assert isinstance(present, dict)
    present.clear()
    for name in names:
        folder, _, last = name.rpartition("/")
        node = {"defaults": [f"/{MODEL}/{name}@_here_", "_self_"]}
        store.store(group=f"{group}/{folder}".rstrip("/"), name=last, node=node)
    _stored[group] = names
