"""Building the optimiser, and the backward pass of a step."""

from collections.abc import Iterable

import torch
from torch import nn, optim

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.distributed import average_gradients
from kdrun.recipes.dot import Dot
from kdrun.recipes.optimizers import OPTIMIZERS
from kdrun.types import StepOutput


def build_optimizer(
    parameters: Iterable[nn.Parameter], schedule: ScheduleConfig
) -> optim.Optimizer:
    """Build the schedule's optimiser for the parameters that require gradients."""
    trained = [p for p in parameters if p.requires_grad]
    return OPTIMIZERS[schedule.optimizer](trained, schedule)


def backward(optimizer: optim.Optimizer, output: StepOutput, scaler: torch.amp.GradScaler) -> None:
    """Compute the gradients of a step; for DOT, those of task and distillation loss separately."""
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
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
