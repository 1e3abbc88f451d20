"""Keep torch's compiler out of processes that compile nothing.

torch imports `torch._dynamo` when an optimiser or a dispatch mode is first used, only to learn that
the compiler is to leave its methods alone. The import takes about 2 seconds of CPU time, more than
a short training.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import optim


def leave_alone(method: Callable[..., Any]) -> None:
    """Answer beforehand what `torch._disable_dynamo`, which wraps `method`, imports it for."""
    wrapped = getattr(method, "__wrapped__", None)
    if wrapped is not None and not hasattr(wrapped, "__dynamo_disable"):
        wrapped.__dynamo_disable = wrapped


for _method in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    leave_alone(getattr(optim.Optimizer, _method))


def _step(kind: type[optim.Optimizer]) -> Any:
    """The step of `kind` without its wrapper, which imports the compiler to end a graph.

    The wrapper also turns gradients off (unless `differentiable`, which is not used here).
    """
    return torch.no_grad()(inspect.unwrap(kind.step))


class SGD(optim.SGD):
    """torch's SGD."""

    step = _step(optim.SGD)


class Adam(optim.Adam):
    """torch's Adam."""

    step = _step(optim.Adam)


class AdamW(optim.AdamW):
    """torch's AdamW."""

    step = _step(optim.AdamW)
