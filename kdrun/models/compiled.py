"""Compile networks and measure the compile time."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class TimedFirst(nn.Module):
    """A compiled network that times its first call, in which compilation happens.

    seconds: duration of the first call; 0 before it.
    """

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run
        self.seconds = 0.0

    def forward(self, images: Tensor) -> Any:
        if self.seconds:
            return self.run(images)
        start = time.perf_counter()
        output = self.run(images)
        self.seconds = time.perf_counter() - start
        return output


def compile_seconds(runs: Iterable[Any]) -> float:
    """Total compile time of the networks in `runs`, including nested ones."""
    modules = [m for run in runs if isinstance(run, nn.Module) for m in run.modules()]
    return sum(module.seconds for module in modules if isinstance(module, TimedFirst))


def compile_network(network: nn.Module) -> TimedFirst:
    """Compile the network on its first call.

    On a GPU, CUDA graphs launch the many small kernels of a small network at once. Every step must
    then start with `begin_step`, which releases the outputs of the previous step.
    """
    mode = "reduce-overhead" if torch.cuda.is_available() else None
    return TimedFirst(torch.compile(network, mode=mode))


def begin_step() -> None:
    """Release the outputs that compiled networks produced in the previous step."""
    if torch.cuda.is_available():
        torch.compiler.cudagraph_mark_step_begin()
