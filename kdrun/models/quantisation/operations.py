"""Which operations of a network run on integers, and which of their inputs are quantised.

Everything else stays in floating point: attention, layer normalisation, sums of tokens `[B, N, D]`.
Batch normalisation that cannot be folded reads integers and computes in floating point. An
activation that is an identity on its grid (ReLU) needs no rule: runtimes merge it with the rounding
that follows.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
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
BATCH_NORM = F.batch_norm
ACTIVATIONS: Functions = frozenset(
    {
        *(F.hardswish, F.silu, F.hardsigmoid, F.gelu, F.leaky_relu, F.prelu, torch.prelu, F.elu),
        *(F.sigmoid, torch.sigmoid, T.sigmoid, F.tanh, torch.tanh, T.tanh, F.mish),
    }
)
# function → position of its argument `inplace`
INPLACE_POSITIONS: dict[Function, int] = {
    function: list(inspect.signature(function).parameters).index("inplace")
    for function in ACTIVATIONS
    if inspect.isfunction(function) and "inplace" in inspect.signature(function).parameters
}
SHORT_NAMES = {"add": ADDITIONS, "mul": PRODUCTS, "cat": CONCATENATIONS, "mean": MEANS}
NAMES: dict[Function, str] = {
    **{
        function: str(function.__name__) for function in (*LAYERS, *POOLS, *ACTIVATIONS, BATCH_NORM)
    },
    **{function: name for name, functions in SHORT_NAMES.items() for function in functions},
}


def is_map(value: Any) -> bool:
    """Whether it is a feature map `[B, C, H, W]` of floating-point numbers."""
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()


def is_layer(args: tuple[Any, ...]) -> bool:
    """Whether the second argument of a convolution or linear layer is a parameter."""
    return len(args) > 1 and isinstance(args[1], nn.Parameter)


def layer_arguments(
    input: Any, weight: Any = None, bias: Any = None, *args: Any, **kwargs: Any
) -> tuple[Any, ...]:
    """The arguments of a convolution or linear layer, those with keywords in place."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    following = list(defaults)[len(args) :] if kwargs else []
    return input, weight, bias, *args, *(kwargs.get(name, defaults[name]) for name in following)


def is_in_place(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call changes its first tensor."""
    position = INPLACE_POSITIONS.get(function, len(args))
    by_position = position < len(args) and bool(args[position])
    return function in IN_PLACE or by_position or bool(kwargs.get("inplace"))


def quantised_inputs(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many of the leading tensors are quantised; 0: the operation stays in floating point.

    For a concatenation the tensors are those of the list.
    """
    if function in LAYERS:
        return 1
    if function in ADDITIONS or function in PRODUCTS:
        plain = len(args) == 2 and not kwargs  # a sum with `alpha` has no integer kernel
        return 2 if plain and is_map(args[0]) and is_map(args[1]) else 0
    if function in CONCATENATIONS:
        tensors = args[0] if args and isinstance(args[0], list | tuple) else ()
        return len(tensors) if all(is_map(tensor) for tensor in tensors) else 0
    if function in MEANS:
        return int(bool(args) and is_map(args[0]) and _over_space(args, kwargs))
    if function is BATCH_NORM:
        return int(bool(args) and is_map(args[0]) and _statistics(*args, **kwargs)[0] is not None)
    if function in POOLS or function in ACTIVATIONS:
        return int(bool(args) and is_map(args[0]))
    return 0


@dataclass(frozen=True)
class Operation:
    """A call of an operation other than a layer.

    tensors: its first arguments, or the list that is concatenated. args, kwargs: the others.
    """

    function: Function
    tensors: list[Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(
        cls, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], count: int
    ) -> "Operation":
        """A call whose first `count` tensors are quantised. It makes a new tensor."""
        if is_in_place(function, args, kwargs) and function in INPLACE_POSITIONS:
            kwargs = {**kwargs, "inplace": False}
            args = args[: INPLACE_POSITIONS[function]]
        if function in CONCATENATIONS:
            return cls(function, list(args[0]), args[1:], kwargs)
        new = IN_PLACE.get(function, function)
        return cls(new, list(args[:count]), args[count:], kwargs)

    @property
    def kind(self) -> str:
        """Its short name."""
        return NAMES[self.function]

    @property
    def area(self) -> int | None:
        """How many values each result averages; None if it varies or the operation is another."""
        height, width = self.tensors[0].shape[-2:]
        if self.function in MEANS:
            return int(height * width)
        if self.function is F.adaptive_avg_pool2d:
            size = self.args[0] if self.args else self.kwargs.get("output_size")
            return int(height * width) if size in (1, (1, 1), [1, 1]) else None
        if self.function is F.avg_pool2d:
            return _window(*self.args, **self.kwargs)
        return None

    def on(self, tensors: list[Tensor]) -> Tensor:
        """The result for other tensors in their place."""
        first = [tensors] if self.function in CONCATENATIONS else tensors
        result: Tensor = self.function(*first, *self.args, **self.kwargs)
        return result


def _statistics(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Any, Any, Any, Any, float]:
    """(mean, variance, weight, bias, eps) of a call of `batch_norm`."""
    return running_mean, running_var, weight, bias, eps


def scale_and_shift(operation: Operation) -> tuple[Tensor, Tensor]:
    """Batch normalisation in eval mode as one product and one sum, `[C, 1, 1]` each."""
    mean, var, weight, bias, eps = _statistics(None, *operation.args, **operation.kwargs)
    scale = torch.rsqrt(var + eps) * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    return scale.view(-1, 1, 1), shift.view(-1, 1, 1)


def _window(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> int | None:
    """Values in each window of `avg_pool2d`; None if the windows at the border have fewer."""
    padded = padding not in (0, (0, 0), [0, 0], (0,), [0])
    if ceil_mode or divisor_override is not None or (padded and not count_include_pad):
        return None
    sides = kernel_size if isinstance(kernel_size, list | tuple) else (kernel_size,)
    return int(sides[0] * sides[-1])


def _over_space(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a mean averages height and width, and nothing else."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(dims, list | tuple) or not all(isinstance(dim, int) for dim in dims):
        return False
    return sorted(dim % 4 for dim in dims) == [2, 3]
