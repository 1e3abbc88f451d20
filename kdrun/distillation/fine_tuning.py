"""Settings of a schedule that treat the classifier differently from the rest of the network."""

from torch import nn

from kdrun.config.schema import ScheduleConfig
from kdrun.errors import ConfigError
from kdrun.weights.load import classifier_parameters


def classifier_for(
    network: nn.Module, schedule: ScheduleConfig, num_classes: int, settings: str = "schedule."
) -> tuple[str, ...]:
    """Names of the classifier's parameters; empty where the schedule makes no difference.

    settings: prefix of the schedule's settings on the command line.
    Raises ConfigError for a network without a classifier that can be told apart.
    """
    used = {
        "freeze_epochs": schedule.freeze_epochs > 0,
        "backbone_lr_factor": schedule.backbone_lr_factor < 1,
        "layer_decay": schedule.layer_decay < 1,
    }
    if not any(used.values()):
        return ()
    names = classifier_parameters(network, num_classes)
    if not names:
        setting = settings + next(name for name, is_used in used.items() if is_used)
        raise ConfigError(
            f"{setting} treats the classifier differently, and this network has no linear layer "
            f"with one output per class: leave {setting} out."
        )
    return names
