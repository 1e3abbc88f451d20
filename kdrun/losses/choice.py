"""Convert losses given in Python (names, settings or instances) to loss configs."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]

from kdrun.config import trust
from kdrun.config.parse import loss_configs
from kdrun.config.schema import LossConfig
from kdrun.errors import ConfigError, did_you_mean
from kdrun.losses.base import DistillationLoss
from kdrun.losses.catalogue import FOLDER, RESERVED

# A name, an instance, or {name: settings or instance}.
LossChoice = str | DistillationLoss | Mapping[str, Mapping[str, Any] | DistillationLoss]


def chosen_losses(
    choice: LossChoice | Sequence[LossChoice],
) -> tuple[dict[str, LossConfig], dict[str, DistillationLoss]]:
    """(config of every loss by name, the given instances by name).

    Names use the settings in `configs/loss`; instances use the weight there, or 1 for custom
    losses. Raises ConfigError for unknown names and settings, and for duplicate names.
    """
    nodes: dict[str, dict[str, Any]] = {}
    instances: dict[str, DistillationLoss] = {}
    choices = [choice] if isinstance(choice, str | Mapping | DistillationLoss) else list(choice)
    for item in choices:
        for name, settings in _entries(item):
            if name in nodes:
                raise ConfigError(f"loss: {name} is given twice; rename one of them.")
            if isinstance(settings, DistillationLoss):
                instances[name] = settings
                nodes[name] = _instance_node(settings)
            else:
                nodes[name] = _node(name, settings)
    if not nodes:
        raise ConfigError(
            "loss is empty: give a name, e.g. loss='kd', or loss='ce' for labels only."
        )
    return loss_configs(nodes), instances


def _entries(choice: LossChoice) -> list[tuple[str, Mapping[str, Any] | DistillationLoss]]:
    if isinstance(choice, str):
        return [(choice, {})]
    if isinstance(choice, DistillationLoss):
        return [(choice.id, choice)]
    if isinstance(choice, Mapping):
        return [(str(name), settings or {}) for name, settings in choice.items()]
    raise ConfigError(
        f"loss: {choice!r} must be a name, a dict of settings ({{'sp': {{'weight': 3000}}}}) or a "
        "loss instance."
    )


def _node(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML node of a built-in loss with `settings` applied, or of one with a `_target_`."""
    if not isinstance(settings, Mapping):
        raise ConfigError(f"loss: the settings of {name} must be a dict, got {settings!r}.")
    if "_target_" in settings:
        trust.name([str(settings["_target_"])])  # the caller names it
        return {"weight": 1.0, **settings}
    node = shipped_node(name)
    if node is None:
        known = sorted(path.stem for path in FOLDER.rglob("*.yaml"))
        hint = did_you_mean(name, known) or f" There are: {', '.join(known)}."
        raise ConfigError(f"loss: there is no loss '{name}'.{hint}")
    for key in settings:
        if key not in node and key not in RESERVED:
            known = [setting for setting in node if setting != "_target_"]
            hint = did_you_mean(key, known) or f" It has: {', '.join(known)}."
            raise ConfigError(f"loss: {name} has no setting '{key}'.{hint}")
    return {**node, **settings}


def _instance_node(loss: DistillationLoss) -> dict[str, Any]:
    node = shipped_node(loss.id) or {}
    kept = {key: value for key, value in node.items() if key in RESERVED and key != "_target_"}
    target = f"{type(loss).__module__}.{type(loss).__qualname__}"
    return {"weight": 1.0, **kept, "_target_": target}


def shipped_node(name: str) -> dict[str, Any] | None:
    """The node of `configs/loss/NAME.yaml`; None if there is no such file."""
    paths = [path for path in FOLDER.rglob("*.yaml") if path.stem == name]
    if not paths:
        return None
    (node,) = yaml.safe_load(paths[0].read_text(encoding="utf-8")).values()
    return dict(node)
