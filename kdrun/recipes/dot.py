"""SGD with a momentum buffer per part of the loss: DOT and DeepKD.

DOT: Zhao et al., ICCV 2023, arXiv 2307.08436. DeepKD: Huang et al. 2025, arXiv 2505.15133.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

TASK, DISTILL = "task_momentum", "distill_momentum"
TARGET, REST = "target_momentum", "rest_momentum"


class ManyMomenta(optim.Optimizer):
    """SGD with a momentum buffer for each part of the loss: p ← p - lr · Σ v_i.

    v_i ← (m + delta_i) · v_i + g_i, g_i the gradient of part i. The weight decay w·p is added to
    the gradient of the first part that reaches a parameter: the labels', as in the authors' code,
    or the teachers' for an adapter. A parameter that only one part reaches (an adapter, a student
    trained alone) takes that part's buffer at momentum m, which is plain SGD.

    parts: name of a buffer → delta, the labels' part first.

    Per batch: `next_part()` and the backward pass of each other part in order, then `next_part()`
    and the backward pass of the labels' part; after one or more batches, `step()`. Nothing is held
    between steps, so the state dict is complete.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        parts: dict[str, float],
        weight_decay: float = 0.0,
    ) -> None:
        self.parts = parts
        self._held: deque[dict[nn.Parameter, Tensor]] = deque({} for _ in range(len(parts) - 1))
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def next_part(self) -> None:
        """Hold the gradients in `.grad`, and put those of the next part there."""
        held = self._held.popleft()
        current = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    current[parameter] = parameter.grad
                parameter.grad = held.get(parameter)
        self._held.append(current)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Use the gradients there are (the labels' part) and those held (the others)."""
        for group in self.param_groups:
            task = {p: p.grad for p in group["params"] if p.grad is not None}
            inside = set(group["params"])
            held = [{p: g for p, g in part.items() if p in inside} for part in self._held]
            gradients = dict(zip(self.parts, [task, *held], strict=True))
            counts = [sum(p in part for part in gradients.values()) for p in group["params"]]
            shared = {p for p, count in zip(group["params"], counts, strict=True) if count > 1}
            _decay(list(gradients.values()), group["weight_decay"])
            for name, part in gradients.items():
                for among in (True, False):
                    chosen = [p for p in part if (p in shared) == among]
                    momentum = group["momentum"] + self.parts[name] * among
                    self._move(chosen, part, name, momentum, group["lr"])
        for part in self._held:
            part.clear()

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


def _decay(parts: list[dict[nn.Parameter, Tensor]], weight_decay: float) -> None:
    """Add the weight decay to the gradient of the first part that reaches each parameter."""
    if weight_decay == 0:
        return
    done: set[nn.Parameter] = set()
    for part in parts:
        for parameter in part:
            if parameter not in done:
                part[parameter] = part[parameter].add(parameter, alpha=weight_decay)
                done.add(parameter)


class Dot(ManyMomenta):
    """Two momenta: labels at m - delta, teachers at m + delta."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, momentum, {TASK: -delta, DISTILL: delta}, weight_decay)


class DeepKd(ManyMomenta):
    """Three momenta: labels, the teachers' target class, the teachers' other classes.

    deltas: in this order. The paper (§3.2) raises the momentum of the first and the last and
    lowers that of the target class. The authors' code updates the labels' buffer with the target
    class's momentum and adds the weight decay to the target class's part; this follows the paper.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        deltas: tuple[float, float, float] = (0.075, -0.075, 0.075),
        weight_decay: float = 0.0,
    ) -> None:
        parts = dict(zip((TASK, TARGET, REST), deltas, strict=True))
        super().__init__(params, lr, momentum, parts, weight_decay)
