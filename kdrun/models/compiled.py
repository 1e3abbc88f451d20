"""Networks through the compiler."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class TimedFirst(nn.Module):
    """A compiled network, and how long its first call took: the compiler works then.

    seconds: of that call; 0 before it.
    """

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run
        self.seconds = 0.0

    def forward(self, images: Tensor) -> Any:
        if self.seconds:
            return self.run(images)
        began = time.perf_counter()
        found = self.run(images)
        self.seconds = time.perf_counter() - began
        return found


def compile_seconds(runs: Iterable[Any]) -> float:
    """What compiling took of the networks among `runs`, those within others too."""
    timed = [m for run in runs if isinstance(run, nn.Module) for m in run.modules()]
    return sum(one.seconds for one in timed if isinstance(one, TimedFirst))


def compile_network(network: nn.Module) -> TimedFirst:
    """The network compiled when it is first run.

    Where there is a GPU with CUDA graphs: the many small kernels of a small network are started as
    one. A step begins with `begin_step`, which says that earlier outputs are done with.
    """
    mode = "reduce-overhead" if torch.cuda.is_available() else None
    return TimedFirst(torch.compile(network, mode=mode))


def begin_step() -> None:
    """What the compiled networks put out in the step before is not needed any more."""
    if torch.cuda.is_available():
        torch.compiler.cudagraph_mark_step_begin()
