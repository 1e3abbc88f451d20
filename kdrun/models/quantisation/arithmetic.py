"""How the quantised operations of a network compute, in training and in evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.models.quantisation import kernels
from kdrun.models.quantisation.kernels import Grid, Quantised
from kdrun.models.quantisation.operations import BATCH_NORM, Operation, scale_and_shift
from kdrun.models.quantisation.ranges import (
    WEIGHT_BITS,
    ActivationRange,
    fake_quantise_weight,
    integer_layer,
)

# Shares of the training after which ranges and batch statistics no longer move, so that the network
# adapts to the constants that are deployed. Running statistics lag behind weights that still move
# fast: a network whose statistics freeze too early falls apart.
RANGES_FREEZE_AFTER = 0.75
STATISTICS_FREEZE_AFTER = 0.9
KERNELS = {"add": kernels.add, "mul": kernels.multiply}


class Arithmetic(Protocol):
    """How quantised operations compute."""

    def tensor(self, quantisers: "Quantisers", name: str, values: Tensor) -> Any:
        """A quantised tensor in the form that `layer` and `operation` read. name: of its range."""

    def layer(
        self, quantisers: "Quantisers", key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        """A convolution or linear layer. args: of `run`; the first is a quantised tensor."""

    def operation(
        self, quantisers: "Quantisers", key: str, operation: Operation, tensors: list[Any]
    ) -> Tensor:
        """Any other operation, on quantised tensors."""


class Quantisers(nn.ModuleDict):
    """The activation ranges of a network, and what its forward passes need to know.

    kind: a key of `WEIGHT_BITS`. calls: names of the quantised calls. weights: call of a layer →
    name of its weight. read_as_floats: names of the parameters that operations in floating point
    read. readers: call → the activation whose grid its result is rounded to, if
    nothing else reads it. norms: path of a convolution → path of the batch normalisation that is
    folded into it. done: share of the training that is done. statistics_after: share after which
    batch normalisation uses its running statistics. arithmetic: None: by training mode.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.weight_bits = WEIGHT_BITS[kind]
        self.calls: set[str] = set()
        self.weights: dict[str, str] = {}
        self.read_as_floats: set[str] = set()
        self.readers: dict[str, str] = {}
        self.norms: dict[str, str] = {}
        self.modules_by_path: dict[str, nn.Module] = {}  # not registered as children
        self.done = 0.0
        self.statistics_after = STATISTICS_FREEZE_AFTER
        self.arithmetic: Arithmetic | None = None
        self.is_active = True
        self.forward_pass: Any = None  # set by the hooks of `quantise`

    @property
    def are_ranges_frozen(self) -> bool:
        """Whether the ranges no longer move."""
        return self.done >= RANGES_FREEZE_AFTER

    def range_of(self, name: str) -> ActivationRange:
        """The range of an activation."""
        its_range = self[name]
        assert isinstance(its_range, ActivationRange)
        return its_range

    def norm_of(self, key: str) -> nn.Module | None:
        """The batch normalisation that is folded into the layer of a call."""
        path = self.norms.get(self.weights[key].rpartition(".")[0])
        return None if path is None else self.modules_by_path[path]

    def forward(self, values: Any) -> Any:
        """Networks that run all of their children run this one too: it passes on what it gets."""
        return values

    def current_arithmetic(self) -> Arithmetic:
        """The arithmetic of a forward pass in the current mode."""
        if self.arithmetic is not None:
            return self.arithmetic
        return TrainingArithmetic() if self.training else IntegerArithmetic()


class TrainingArithmetic:
    """Fake quantisation with gradients."""

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Tensor:
        its_range = quantisers.range_of(name)
        if not quantisers.are_ranges_frozen or not its_range.is_observed:
            its_range.observe(values)
        return its_range.fake_quantise(values) if its_range.is_observed else values

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        weight = fake_quantise_weight(args[1], quantisers.weight_bits)
        return run(args[0], weight, *args[2:])

    def operation(
        self, quantisers: Quantisers, key: str, operation: Operation, tensors: list[Tensor]
    ) -> Tensor:
        return operation.on(tensors)


@dataclass(frozen=True)
class LayerConstants:
    """weight: `[C, ...]`, integers. step: `[C]`, of the sums. bias: `[C]`, integers in steps."""

    weight: Tensor
    step: Tensor
    bias: Tensor | None


class IntegerArithmetic:
    """Batch normalisation folded; layers multiply integers and round the sums, as kernels do."""

    def grid(self, quantisers: Quantisers, name: str | None) -> Grid | None:
        """The grid of an activation; None: it has none."""
        its_range = None if name is None else quantisers.range_of(name)
        return its_range.grid() if its_range is not None and its_range.is_observed else None

    def constants(
        self, quantisers: Quantisers, key: str, weight: Tensor, bias: Tensor | None, scale: Any
    ) -> LayerConstants:
        """The constants of a layer. scale: of its input."""
        norm = quantisers.norm_of(key)
        layer = integer_layer(weight, bias, norm, quantisers.weight_bits)
        return LayerConstants(layer.weight, layer.scale * scale, layer.bias_integers(scale))

    def scale_and_shift(self, key: str, operation: Operation) -> tuple[Tensor, Tensor]:
        """The constants of a batch normalisation that is not folded."""
        return scale_and_shift(operation)

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Quantised:
        grid = self.grid(quantisers, name)
        return Quantised(values if grid is None else grid.integers(values), grid)

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        quantised, weight, bias, *rest = args if len(args) > 2 else [*args, None]
        scale = 1.0 if quantised.grid is None else quantised.grid.scale
        constants = self.constants(quantisers, key, weight, bias, scale)
        sums = run(quantised.integers, constants.weight, None, *rest)
        if quantised.grid is not None:
            sums = torch.round(sums)  # some float algorithms, e.g. Winograd's, are not exact
        if constants.bias is not None:
            sums = sums + along_channels(constants.bias, sums, run)
        step = along_channels(constants.step, sums, run)
        reader = self.grid(quantisers, quantisers.readers.get(key))
        if reader is None or quantised.grid is None:
            return sums * step
        return reader.requantised(sums, step) * reader.scale

    def operation(
        self, quantisers: Quantisers, key: str, operation: Operation, tensors: list[Quantised]
    ) -> Tensor:
        kernel = KERNELS.get(operation.kind)
        if kernel is not None:
            reader = self.grid(quantisers, quantisers.readers.get(key))
            return kernel(tensors[0], tensors[1], reader)
        if operation.function is BATCH_NORM:
            scale, shift = self.scale_and_shift(key, operation)
            return tensors[0].values * scale + shift  # two roundings, as in two ONNX nodes
        if operation.area is not None and tensors[0].grid is not None:
            sums = torch.round(operation.on([tensors[0].integers]) * operation.area)
            return sums * (tensors[0].grid.scale / operation.area)
        return operation.on([tensor.values for tensor in tensors])


def along_channels(values: Tensor, output: Tensor, run: Callable[..., Tensor]) -> Tensor:
    """One value per output channel `[C]` in a shape that broadcasts over a layer's output."""
    if run is F.linear:
        return values
    return values.view(-1, *[1] * (output.dim() - 2))  # a convolution's output has a batch axis


def unquantised(module: nn.Module, names: set[str]) -> list[str]:
    """Paths of the layers whose weights are not in `names`."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return [
        path
        for path, child in module.named_modules()
        if isinstance(child, layers) and f"{path}.weight" not in names
    ]
