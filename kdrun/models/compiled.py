"""Networks through the compiler."""

from typing import Any

import torch
from torch import nn


def compile_network(network: nn.Module) -> Any:
    """The network compiled when it is first run.

    Where there is a GPU with CUDA graphs: the many small kernels of a small network are started as
    one. A step begins with `begin_step`, which says that earlier outputs are done with.
    """
    mode = "reduce-overhead" if torch.cuda.is_available() else None
    return torch.compile(network, mode=mode)


def begin_step() -> None:
    """What the compiled networks put out in the step before is not needed any more."""
    if torch.cuda.is_available():
        torch.compiler.cudagraph_mark_step_begin()
