"""Optimisers by name: one registered function `(parameters, schedule) -> optimiser` each.

torch is imported inside the functions: the command line reads the names and declared settings of
this registry and must start without it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kdrun.errors import MissingExtraError
from kdrun.recipes.registry import Registry

if TYPE_CHECKING:
    from torch import nn, optim

    from kdrun.config.schema import ScheduleConfig

Parameters = Sequence["nn.Parameter"]
MakeOptimizer = Callable[[Parameters, "ScheduleConfig"], "optim.Optimizer"]
OPTIMIZERS: Registry[MakeOptimizer] = Registry("optimizer")


@OPTIMIZERS.register("sgd", reads=("momentum", "nesterov"))
def sgd(parameters: Parameters, schedule: "ScheduleConfig") -> "optim.Optimizer":
    """SGD with momentum; decays every parameter, as the field's CIFAR recipes do."""
    from kdrun.uncompiled import SGD

    return SGD(
        parameters,
        lr=schedule.lr,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        weight_decay=schedule.weight_decay,
        fused=_fused(parameters),
    )


@OPTIMIZERS.register("adam", reads=("betas",))
def adam(parameters: Parameters, schedule: "ScheduleConfig") -> "optim.Optimizer":
    """Adam; decays every parameter, through the gradient."""
    from kdrun.uncompiled import Adam

    betas = (schedule.betas[0], schedule.betas[1])
    decay, fused = schedule.weight_decay, _fused(parameters)
    return Adam(parameters, lr=schedule.lr, betas=betas, weight_decay=decay, fused=fused)


@OPTIMIZERS.register("adamw", reads=("betas",))
def adamw(parameters: Parameters, schedule: "ScheduleConfig") -> "optim.Optimizer":
    """AdamW; decays matrices and convolutions only, as transformer recipes do."""
    from kdrun.uncompiled import AdamW

    betas = (schedule.betas[0], schedule.betas[1])
    groups = _decay_groups(parameters, schedule)
    return AdamW(groups, lr=schedule.lr, betas=betas, fused=_fused(parameters))


@OPTIMIZERS.register("lamb", reads=("betas",))
def lamb(parameters: Parameters, schedule: "ScheduleConfig") -> "optim.Optimizer":
    """timm's LAMB, for large batches (You et al. 2020, arXiv 1904.00962); decays as `adamw` does.

    It clips the norm of all gradients to 1, as in "ResNet strikes back" (arXiv 2110.00476).
    """
    from kdrun.vision import import_torchvision

    import_torchvision()  # timm imports it, and importing it may need a workaround
    try:
        from timm.optim import Lamb
    except ModuleNotFoundError:
        raise MissingExtraError("timm", "timm", "schedule.optimizer=lamb") from None
    betas = (schedule.betas[0], schedule.betas[1])
    groups = _decay_groups(parameters, schedule)
    optimizer: optim.Optimizer = Lamb(groups, lr=schedule.lr, betas=betas)
    return optimizer


@OPTIMIZERS.register("dot", reads=("momentum", "nesterov", "dot_delta"))
def dot(parameters: Parameters, schedule: "ScheduleConfig") -> "optim.Optimizer":
    """Distillation-oriented trainer (Zhao et al. 2023, arXiv 2307.08436): two momenta."""
    from kdrun.recipes.dot import Dot

    return Dot(
        parameters,
        lr=schedule.lr,
        momentum=schedule.momentum,
        delta=schedule.dot_delta,
        weight_decay=schedule.weight_decay,
    )


@OPTIMIZERS.register("deepkd", reads=("momentum", "nesterov", "deepkd_deltas"))
def deepkd(parameters: Parameters, schedule: "ScheduleConfig") -> "optim.Optimizer":
    """DeepKD (2025, arXiv 2505.15133): three momenta: labels, target class, other classes."""
    from kdrun.recipes.dot import DeepKd

    first, second, third = schedule.deepkd_deltas
    return DeepKd(
        parameters,
        lr=schedule.lr,
        momentum=schedule.momentum,
        deltas=(first, second, third),
        weight_decay=schedule.weight_decay,
    )


def _decay_groups(parameters: Parameters, schedule: "ScheduleConfig") -> list[dict[str, Any]]:
    """Matrices and convolutions with weight decay; biases and norms without."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _fused(parameters: Parameters) -> bool | None:
    """One kernel for all parameters on a GPU; on a CPU it gains nothing."""
    return True if parameters and all(p.is_cuda for p in parameters) else None
