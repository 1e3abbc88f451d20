"""Which operations of a network run on integers, and which of their inputs are quantised.

Everything else stays in floating point: normalisation, attention, sums of tokens `[B, N, D]`. An
activation that is an identity on its grid (ReLU) needs no rule: runtimes merge it with the rounding
that follows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

T = torch.Tensor
Function = Callable[..., Any]
Functions = frozenset[Function]
CONVOLUTIONS: Functions = frozenset({torch.conv1d, torch.conv2d, torch.conv3d})
LAYERS: Functions = CONVOLUTIONS | {F.linear}
ADDITIONS: Functions = frozenset({torch.add, T.add, T.add_, T.__add__, T.__iadd__, T.__radd__})
PRODUCTS: Functions = frozenset({torch.mul, T.mul, T.mul_, T.__mul__, T.__imul__, T.__rmul__})
# in place → the operation that makes a new tensor
IN_PLACE: dict[Function, Function] = {
    T.add_: torch.add, T.__iadd__: torch.add, T.mul_: torch.mul, T.__imul__: torch.mul
}  # fmt: skip
CONCATENATIONS: Functions = frozenset({torch.cat, torch.concat, torch.concatenate})
MEANS: Functions = frozenset({torch.mean, T.mean})
POOLS: Functions = frozenset({F.adaptive_avg_pool2d, F.avg_pool2d})
ACTIVATIONS: Functions = frozenset(
    {
        *(F.hardswish, F.silu, F.hardsigmoid, F.gelu, F.leaky_relu, F.prelu, torch.prelu, F.elu),
        *(F.sigmoid, torch.sigmoid, T.sigmoid, F.tanh, torch.tanh, T.tanh, F.mish),
    }
)
SHORT_NAMES = {"add": ADDITIONS, "mul": PRODUCTS, "cat": CONCATENATIONS, "mean": MEANS}
NAMES: dict[Function, str] = {
    **{function: str(function.__name__) for function in (*LAYERS, *POOLS, *ACTIVATIONS)},
    **{function: name for name, functions in SHORT_NAMES.items() for function in functions},
}


def is_map(value: Any) -> bool:
    """Whether it is a feature map `[B, C, H, W]` of floating-point numbers."""
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()


def is_layer(args: tuple[Any, ...]) -> bool:
    """Whether the second argument of a convolution or linear layer is a parameter."""
    return len(args) > 1 and isinstance(args[1], nn.Parameter)


def quantised_inputs(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many of the leading tensors are quantised; 0: the operation stays in floating point.

    For a concatenation the tensors are those of the list.
    """
    if function in LAYERS:
        return int(not kwargs)
    if function in ADDITIONS or function in PRODUCTS:
        return 2 if len(args) == 2 and is_map(args[0]) and is_map(args[1]) else 0
    if function in CONCATENATIONS:
        tensors = args[0] if args and isinstance(args[0], list | tuple) else ()
        return len(tensors) if all(is_map(tensor) for tensor in tensors) else 0
    if function in MEANS:
        return int(bool(args) and is_map(args[0]) and _over_space(args, kwargs))
    if function in POOLS or function in ACTIVATIONS:
        return int(bool(args) and is_map(args[0]))
    return 0


def _over_space(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a mean averages height and width, and nothing else."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(dims, list | tuple) or not all(isinstance(dim, int) for dim in dims):
        return False
    return sorted(dim % 4 for dim in dims) == [2, 3]
