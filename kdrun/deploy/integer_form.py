"""The integer form of a quantised network: what an exported file computes.

Batch normalisation is folded, weights are stored as integers, biases as 32-bit integers in units of
(input scale · weight scale), and every range is a constant.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.models.quantisation.arithmetic import (
    IntegerArithmetic,
    LayerConstants,
    Quantisers,
)
from kdrun.models.quantisation.kernels import Grid
from kdrun.models.quantisation.operations import BATCH_NORM, Operation, scale_and_shift
from kdrun.models.quantisation.quantise import quantisers_of
from kdrun.models.quantisation.ranges import IntegerLayer, integer_layer

OPSET = 18  # of the quantising operators


@dataclass(frozen=True)
class Constants:
    """What a network's forward pass reads.

    grids: activation → its grid; those without one pass unchanged. scales: weight → step of each
    output channel. biases: call of a layer → its bias in units of input scale · step, int32. norms:
    call of a batch normalisation → its scale and shift.
    """

    grids: dict[str, Grid]
    scales: dict[str, Tensor]
    biases: dict[str, Tensor]
    norms: dict[str, tuple[Tensor, Tensor]]


class IntegerForm(IntegerArithmetic):
    """Plain PyTorch operations on constants, which `torch.export` can follow."""

    def __init__(self, found: Constants) -> None:
        self.found = found

    def grid(self, quantisers: Quantisers, name: str | None) -> Grid | None:
        return None if name is None else self.found.grids.get(name)

    def constants(
        self, quantisers: Quantisers, key: str, weight: Tensor, bias: Tensor | None, scale: Any
    ) -> LayerConstants:
        step = self.found.scales[quantisers.weights[key]] * scale
        rounded = None if bias is None else self.found.biases[key].float()
        return LayerConstants(weight.float(), step, rounded)

    def scale_and_shift(self, key: str, operation: Operation) -> tuple[Tensor, Tensor]:
        return self.found.norms[key]


class _FindConstants(IntegerForm):
    """Computes the constants of each call in a run of the network."""

    def constants(
        self, quantisers: Quantisers, key: str, weight: Tensor, bias: Tensor | None, scale: Any
    ) -> LayerConstants:
        steps = self.found.scales[quantisers.weights[key]]
        rounded = IntegerLayer(weight, steps, bias).bias_integers(scale)
        if rounded is not None:
            self.found.biases[key] = rounded.to(torch.int32)
        return super().constants(quantisers, key, weight, bias, scale)

    def scale_and_shift(self, key: str, operation: Operation) -> tuple[Tensor, Tensor]:
        self.found.norms[key] = scale_and_shift(operation)
        return self.found.norms[key]


@dataclass(frozen=True)
class Rounded:
    """A quantised tensor in an ONNX graph. values: `uint8`; floats without a grid."""

    values: Tensor
    grid: Grid | None

    def as_float(self) -> Tensor:
        """The output of `DequantizeLinear`."""
        if self.grid is None:
            return self.values
        inputs = (self.values, *_onnx_grid(self.grid))
        return _operator("DequantizeLinear", inputs, torch.float32, self.values.shape)


class OnnxForm(IntegerForm):
    """ONNX operators: `QuantizeLinear` and `DequantizeLinear` around every operation.

    Runtimes replace each group by an integer kernel. Only `torch.onnx.export` can follow it.
    """

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Any:
        grid = self.grid(quantisers, name)
        if grid is None:
            return Rounded(values, None)
        inputs = (values, *_onnx_grid(grid))
        return Rounded(_operator("QuantizeLinear", inputs, torch.uint8, values.shape), grid)

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        rounded, weight, bias, *rest = args if len(args) > 2 else [*args, None]
        values = rounded.as_float()
        steps = self.found.scales[quantisers.weights[key]]
        weight = _dequantised(weight, steps)
        if bias is not None:
            scale = 1.0 if rounded.grid is None else rounded.grid.scale
            bias = _dequantised(self.found.biases[key], steps * scale)
        if run is not F.linear or values.dim() == 2:
            return run(values, weight, bias, *rest)
        rows = run(values.flatten(0, -2), weight, bias)  # Gemm, which has an integer kernel
        return rows.unflatten(0, values.shape[:-1])

    def operation(
        self, quantisers: Quantisers, key: str, operation: Operation, tensors: list[Any]
    ) -> Tensor:
        grid = tensors[0].grid
        if operation.function is BATCH_NORM:
            scale, shift = self.scale_and_shift(key, operation)
            values: Tensor = tensors[0].as_float()
            return values * scale + shift
        if operation.area is None or grid is None:
            return operation.on([tensor.as_float() for tensor in tensors])
        integers = tensors[0].values.float() - grid.zero
        sums = torch.round(operation.on([integers]) * operation.area)
        return sums * (grid.scale / operation.area)


def _onnx_grid(grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point as constants of their own."""
    return torch.tensor(grid.scale.item()), torch.tensor(int(grid.zero.item()), dtype=torch.uint8)


def _dequantised(integers: Tensor, scale: Tensor) -> Tensor:
    """Integers `[C, ...]` times scale `[C]`."""
    zero = torch.zeros(len(scale), dtype=integers.dtype)
    inputs = (integers, scale, zero)
    return _operator("DequantizeLinear", inputs, torch.float32, integers.shape, axis=0)


def _operator(
    name: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, shape: Any, **attributes: int
) -> Tensor:
    return torch.onnx.ops.symbolic(
        name, inputs, dict(attributes), dtype=dtype, shape=shape, version=OPSET
    )


@torch.no_grad()
def integer_form(network: nn.Module, sample: Tensor, form: type[IntegerForm]) -> nn.Module:
    """A copy of a quantised network that computes on integers and constants, in eval mode.

    sample: images `[B, C, H, W]`. form: IntegerForm | OnnxForm.
    Raises ConfigError if an operation in floating point reads a weight that becomes integers.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    quantisers = quantisers_of(network)
    assert quantisers is not None
    constants = Constants(_grids(quantisers), {}, {}, {})
    for key, name in quantisers.weights.items():
        if name not in constants.scales:
            constants.scales[name] = _store_integers(network, quantisers, key)
    for path in quantisers.norms.values():
        network.set_submodule(path, nn.Identity())
    quantisers.arithmetic = _FindConstants(constants)
    network(sample)
    quantisers.arithmetic = form(constants)
    return network


def _store_integers(network: nn.Module, quantisers: Quantisers, key: str) -> Tensor:
    """Replace the weight of a call by integers, and its bias by the folded one; returns scales."""
    name = quantisers.weights[key]
    if name in quantisers.read_as_floats:
        raise ConfigError(
            f"The weight {name} is read by a quantised layer and by an operation in floating "
            "point: export with format=safetensors, or give the network two weights."
        )
    owner, _, attribute = name.rpartition(".")
    module = network.get_submodule(owner)
    norm = quantisers.norm_of(key)
    weight, bias = getattr(module, attribute), getattr(module, "bias", None)
    layer = integer_layer(weight, None if norm is None else bias, norm, quantisers.weight_bits)
    integers = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    for sharing in network.modules():
        for shared, parameter in list(sharing.named_parameters(recurse=False)):
            if parameter is weight:
                setattr(sharing, shared, integers)
    if norm is not None:
        setattr(module, "bias", layer.bias)  # noqa: B010 - a tensor in place of a parameter
    return layer.scale


def _grids(quantisers: Quantisers) -> dict[str, Grid]:
    ranges = {name: quantisers.range_of(name) for name in quantisers}
    return {name: its_range.grid() for name, its_range in ranges.items() if its_range.is_observed}
