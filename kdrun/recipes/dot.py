"""The distillation-oriented trainer: Zhao et al., ICCV 2023, arXiv 2307.08436."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

TASK, DISTILL = "task_momentum", "distill_momentum"


class Dot(optim.Optimizer):
    """SGD with two momenta: labels at m - delta, teachers at m + delta.

    With g_ce and g_kd the gradients of the two parts of the loss and w the weight decay:
    v_ce ← (m - delta) v_ce + g_ce + w·p;  v_kd ← (m + delta) v_kd + g_kd;  p ← p - lr (v_ce + v_kd)
    (weight decay belongs to the labels' part, as in the authors' code). A parameter that only
    one part reaches (an adapter, a student trained alone) takes that part's buffer at momentum m,
    which is plain SGD.

    Per batch: `swap_parts()`, the backward pass of the teachers' part, `swap_parts()`, the backward
    pass of the labels' part; after one or more batches, `step()`. Nothing is held between steps, so
    the state dict is complete.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._held: dict[nn.Parameter, Tensor] = {}

    def swap_parts(self) -> None:
        """Exchange `.grad` of all parameters with the held gradients of the teachers' part."""
        held, self._held = self._held, {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._held[parameter] = parameter.grad
                parameter.grad = held.get(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Use the gradients there are (the labels' part) and those held (the teachers')."""
        for group in self.param_groups:
            task = [p for p in group["params"] if p.grad is not None]
            distill = [p for p in group["params"] if p in self._held]
            both = set(task) & set(distill)
            decayed = task + [p for p in distill if p not in both]
            gradients = {TASK: {p: p.grad for p in task}, DISTILL: self._held}
            _decay(decayed, gradients, group["weight_decay"])
            for name, part, sign in ((TASK, task, -1), (DISTILL, distill, 1)):
                for shared in (True, False):
                    chosen = [p for p in part if (p in both) == shared]
                    momentum = group["momentum"] + sign * group["delta"] * shared
                    self._move(chosen, gradients[name], name, momentum, group["lr"])
        self._held = {}

    def _move(
        self,
        parameters: list[nn.Parameter],
        gradients: dict[nn.Parameter, Tensor],
        name: str,
        momentum: float,
        lr: float,
    ) -> None:
        """One momentum step of `parameters` with the buffers called `name`."""
        if not parameters:
            return
        tensors: list[Tensor] = list(parameters)
        buffers: list[Tensor] = []
        for parameter in parameters:
            state = self.state[parameter]
            if name not in state:
                state[name] = torch.zeros_like(parameter)
            buffers.append(state[name])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, [gradients[p] for p in parameters])
        torch._foreach_add_(tensors, buffers, alpha=-lr)


def _decay(
    parameters: list[nn.Parameter],
    gradients: dict[str, dict[nn.Parameter, Tensor]],
    weight_decay: float,
) -> None:
    """Add the weight decay to the labels' gradient, or to the teachers' where there is no other."""
    if weight_decay == 0:
        return
    for parameter in parameters:
        part = gradients[TASK] if parameter in gradients[TASK] else gradients[DISTILL]
        part[parameter] = part[parameter].add(parameter, alpha=weight_decay)
