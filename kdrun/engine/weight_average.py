"""Exponential moving average (EMA) of a network's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def ema_decay(decay: float, update: int) -> float:
    """The decay of update number `update` (from 1): min(decay, (1 + n) / (10 + n)).

    The average follows the weights closely at first, instead of remembering the random
    initialisation. Source: `num_updates` of TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """The EMA of a network's state: average ← d · average + (1 - d) · weights after each step.

    Parameters and floating-point buffers (batch-norm statistics) are averaged; integer buffers are
    copied. As in timm's `ModelEmaV3` and torchvision's reference scripts, apart from the warm-up
    (`ema_decay`).

    decay: limit of d; 0 disables the average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.tensors: dict[str, Tensor] | None = None
        if decay:
            self.tensors = {name: tensor.clone() for name, tensor in self._state().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after optimiser step number `step` (from 1)."""
        if self.tensors is None:
            return
        state = self._state()
        averaged = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in averaged],
            [state[name] for name in averaged],
            1.0 - ema_decay(self.decay, step),
        )
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                self.tensors[name].copy_(tensor)

    def restore(self, tensors: dict[str, Tensor] | None) -> None:
        """Continue from the tensors of a checkpoint. Raises KeyError if they do not fit."""
        if self.tensors is not None:
            saved = tensors or {}
            self.tensors = {n: saved[n].to(tensor.device) for n, tensor in self.tensors.items()}

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}


@contextmanager
def weights_swapped(network: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Context in which `network` has the given state, e.g. its averaged weights."""
    before = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(tensors)
    try:
        yield
    finally:
        network.load_state_dict(before)
