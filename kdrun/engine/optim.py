"""Building the optimiser, and the backward pass of a step."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn, optim

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.distributed import average_gradients
from kdrun.recipes.dot import DeepKd, ManyMomenta
from kdrun.recipes.optimizers import OPTIMIZERS
from kdrun.types import StepOutput


def build_optimizer(
    parameters: Iterable[nn.Parameter], schedule: ScheduleConfig
) -> optim.Optimizer:
    """Build the schedule's optimiser for the parameters that require gradients."""
    trained = [p for p in parameters if p.requires_grad]
    return OPTIMIZERS[schedule.optimizer](trained, schedule)


def backward(
    optimizer: optim.Optimizer,
    output: StepOutput,
    scaler: torch.amp.GradScaler,
    weight: float = 1.0,
) -> None:
    """Add `weight` times the gradients of a batch to those of the step.

    For DOT and DeepKD, the gradients of task and distillation losses stay apart.
    """
    if isinstance(optimizer, ManyMomenta) and "distill" in output.groups:
        for part in _teachers_parts(optimizer, output):
            optimizer.next_part()
            if part.requires_grad:
                _times(weight, part).backward(retain_graph=True)
        optimizer.next_part()
        _times(weight, output.groups["task"]).backward()
    else:
        scaler.scale(_times(weight, output.loss)).backward()


def finish_gradients(optimizer: optim.Optimizer, factor: float = 1.0) -> None:
    """Average the gradients of a step over the processes, and multiply them by `factor`."""
    for _ in range(len(optimizer.parts) if isinstance(optimizer, ManyMomenta) else 1):
        average_gradients(optimizer)
        if factor != 1.0:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            torch._foreach_mul_([grad for grad in grads if grad is not None], factor)
        if isinstance(optimizer, ManyMomenta):
            optimizer.next_part()


def _teachers_parts(optimizer: ManyMomenta, output: StepOutput) -> list[Tensor]:
    """The distillation loss; for DeepKD its part of the target class, and the rest."""
    distill = output.groups["distill"]
    if not isinstance(optimizer, DeepKd):
        return [distill]
    target = output.groups["target"]
    return [target, distill - target]


def _times(weight: float, loss: Tensor) -> Tensor:
    return loss if weight == 1.0 else weight * loss


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups; a group's `lr_scale` multiplies it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
