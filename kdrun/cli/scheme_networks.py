"""Networks named in a scheme's settings: each name is an option of the group `student`."""

from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from kdrun.cli import config_groups
from kdrun.config.composition import searchpath
from kdrun.config.parse import STUDENT
from kdrun.config.schema import StartConfig
from kdrun.config.settings import keys_of
from kdrun.errors import ConfigError, did_you_mean

KEYS = ("scheme.peers", "scheme.assistants")


def fill_in(cfg: DictConfig, config_dir: Path | None) -> None:
    """Replace the names in a scheme's lists by the settings they stand for, in `cfg` itself.

    An entry is a name (`resnet20`), `student` (of peers), or `{name: resnet20, depth: 26}`: an
    option with other settings. Hydra must be initialised. Raises ConfigError for names that do not
    exist.
    """
    for key in KEYS:
        listed = OmegaConf.select(cfg, key)
        if not OmegaConf.is_list(listed):
            continue
        known = config_groups.list_groups(config_dir)["student"]
        plain = OmegaConf.to_container(listed, resolve=False)
        assert isinstance(plain, list)
        found = [_network(key, one, known, config_dir) for one in plain]
        OmegaConf.update(cfg, key, found, merge=False)


def _network(where: str, peer: Any, known: list[str], config_dir: Path | None) -> Any:
    changes: dict[str, Any] = peer if isinstance(peer, dict) else {}
    name = changes.get("name") if isinstance(peer, dict) else peer
    if name == STUDENT and changes:
        raise ConfigError(
            f"{where}: {{name: {STUDENT}, ...}} is another network: name the one it is made of."
        )
    if name == STUDENT or "_target_" in changes:
        return peer
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise ConfigError(
            f"{where}: there is no network '{name}'.{hint} kdrun ls student lists them"
            + (f"; '{STUDENT}' is another one like the student." if "peers" in where else ".")
        )
    cfg = compose("distill", [f"student={name}", *searchpath(config_dir)])
    node = OmegaConf.to_container(cfg.student)
    assert isinstance(node, dict)
    node = {key: value for key, value in node.items() if key not in keys_of(StartConfig)}
    settings = {str(key) for key in node}
    for key in changes:
        if key not in settings:
            hint = did_you_mean(str(key), settings) or f" It has: {', '.join(sorted(settings))}."
            raise ConfigError(f"{where}: {name} has no '{key}'.{hint}")
    return {**node, **changes}
