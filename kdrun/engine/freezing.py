"""Fine-tuning: a frozen backbone in the first epochs, and frozen batch-norm statistics."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdrun.config.schema import ScheduleConfig
from kdrun.errors import ConfigError


def require_thawing(schedule: ScheduleConfig, epochs: int, settings: str) -> None:
    """Raise ConfigError for a training of `epochs` that freezes the backbone throughout.

    settings: prefix of the schedule's settings on the command line. `schedule.steps` ends a
    training of any number of epochs, which is known only with the data.
    """
    if schedule.freeze_epochs >= epochs and schedule.freeze_epochs:
        raise ConfigError(
            f"{settings}freeze_epochs={schedule.freeze_epochs} freezes all but the classifier in "
            f"all of the {schedule.steps} steps of {settings}steps: set {settings}freeze_epochs=0, "
            f"or raise {settings}steps."
        )


class Freezing:
    """What of a network is not trained in an epoch.

    `schedule.freeze_epochs`: gradients are computed for the classifier only. Batch normalisation
    still updates its statistics, unless `schedule.freeze_bn_stats`, which keeps it in evaluation
    mode throughout. Adapters of losses are trained from the start.

    classifier: names of the classifier's parameters.
    """

    def __init__(
        self, network: nn.Module, schedule: ScheduleConfig, classifier: Sequence[str]
    ) -> None:
        self.network = network
        self.epochs = schedule.freeze_epochs
        self.freeze_bn_stats = schedule.freeze_bn_stats
        self.backbone = [
            parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad and name not in classifier
        ]

    def start_epoch(self, epoch: int) -> None:
        """Call before epoch number `epoch` (from 0), after the network was set to training mode."""
        if self.epochs:
            for parameter in self.backbone:
                parameter.requires_grad_(epoch >= self.epochs)
        if self.freeze_bn_stats:
            freeze_statistics(self.network)

    def finish(self) -> None:
        """Leave every parameter as it was before the first epoch."""
        for parameter in self.backbone:
            parameter.requires_grad_()


def freeze_statistics(network: nn.Module) -> None:
    """Put the batch normalisation of `network` in evaluation mode."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
