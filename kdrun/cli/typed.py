"""From a composed configuration to its checked dataclass; what it names may be called then."""

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from kdrun.cli import verbs
from kdrun.config import places, trust
from kdrun.config.precision import holds_auto
from kdrun.sweeps.plan import Config


def typed_config(verb: str, cfg: DictConfig, config_dir: Path | None = None) -> Config:
    """The composed configuration of `verb` as its dataclass, types and ranges checked.

    config_dir: the folder of the user's own options; Hydra must be initialised.
    What it names may be called from here on: it is what the user typed.
    """
    config: Config = verbs.module(verb).config(cfg, config_dir)
    if holds_auto(config):
        from kdrun.engine.speed import resolve_precision  # imports torch

        config = resolve_precision(config, config.runtime)
    trust.name(trust.targets_in(asdict(config)))
    places.typed(config)
    return config
