"""Optimisers by name."""

from collections.abc import Iterable

from torch import nn, optim

from kdrun.config.schema import ScheduleConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], schedule: ScheduleConfig
) -> optim.Optimizer:
    """The optimiser a schedule names, over `parameters`.

    SGD and Adam decay every parameter, as the field's CIFAR recipes do; AdamW decays matrices and
    convolutions only, as transformer recipes do.
    """
    trained = [p for p in parameters if p.requires_grad]
    if schedule.optimizer == "sgd":
        return optim.SGD(
            trained,
            lr=schedule.lr,
            momentum=schedule.momentum,
            nesterov=schedule.nesterov,
            weight_decay=schedule.weight_decay,
        )
    betas = (schedule.betas[0], schedule.betas[1])
    if schedule.optimizer == "adam":
        return optim.Adam(trained, lr=schedule.lr, betas=betas, weight_decay=schedule.weight_decay)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return optim.AdamW([g for g in groups if g["params"]], lr=schedule.lr, betas=betas)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Use `lr` for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
