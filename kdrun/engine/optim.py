"""Optimisers by name, and how each of them takes its gradients."""

from collections.abc import Iterable

import torch
from torch import nn, optim

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.distributed import average_gradients
from kdrun.engine.dot import Dot
from kdrun.types import StepOutput


def build_optimizer(
    parameters: Iterable[nn.Parameter], schedule: ScheduleConfig
) -> optim.Optimizer:
    """The optimiser a schedule names, over `parameters`.

    SGD, Dot and Adam decay every parameter, as the field's CIFAR recipes do; AdamW decays matrices
    and convolutions only, as transformer recipes do.
    """
    trained = [p for p in parameters if p.requires_grad]
    # One kernel for all parameters instead of some for each; on a processor it buys nothing.
    fused = True if trained and all(p.is_cuda for p in trained) else None
    if schedule.optimizer == "sgd":
        return optim.SGD(
            trained,
            lr=schedule.lr,
            momentum=schedule.momentum,
            nesterov=schedule.nesterov,
            weight_decay=schedule.weight_decay,
            fused=fused,
        )
    if schedule.optimizer == "dot":
        return Dot(
            trained,
            lr=schedule.lr,
            momentum=schedule.momentum,
            delta=schedule.dot_delta,
            weight_decay=schedule.weight_decay,
        )
    betas = (schedule.betas[0], schedule.betas[1])
    if schedule.optimizer == "adam":
        decay = schedule.weight_decay
        return optim.Adam(trained, lr=schedule.lr, betas=betas, weight_decay=decay, fused=fused)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return optim.AdamW(groups, lr=schedule.lr, betas=betas, fused=fused)


def backward(optimizer: optim.Optimizer, output: StepOutput, scaler: torch.amp.GradScaler) -> None:
    """The gradients of a step's loss; for Dot those of its two parts apart."""
    optimizer.zero_grad(set_to_none=True)
    if isinstance(optimizer, Dot) and "distill" in output.groups:
        output.groups["distill"].backward(retain_graph=True)
        average_gradients(optimizer)
        optimizer.hold_distill()
        output.groups["task"].backward()
    else:
        scaler.scale(output.loss).backward()
    average_gradients(optimizer)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Use `lr` for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
