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

from kdrun.models.quantisation.arithmetic import IntegerArithmetic, Quantisers, along_channels
from kdrun.models.quantisation.quantise import quantisers_of
from kdrun.models.quantisation.ranges import IntegerLayer, integer_layer, multiples

OPSET = 18  # of the quantising operators


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of an activation."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Constants:
    """What a network's forward pass reads.

    grids: activation → its grid; those without one pass unchanged. scales: weight → step of each
    output channel. biases: call of a layer → its bias in units of input scale · step, int32.
    """

    grids: dict[str, Grid]
    scales: dict[str, Tensor]
    biases: dict[str, Tensor]


class IntegerForm(IntegerArithmetic):
    """Plain PyTorch operations on constants, which `torch.export` can follow."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants

    def tensor(
        self, quantisers: Quantisers, name: str, values: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        grid = self.constants.grids.get(name)
        if grid is None:
            return values, 1.0
        return multiples(values, grid.scale, grid.zero), grid.scale

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        (integers, scale), weight, bias, *rest = args if len(args) > 2 else [*args, None]
        steps = self.constants.scales[quantisers.weights[key]] * scale
        sums = run(integers, weight.to(integers.dtype), None, *rest)
        if bias is not None:
            rounded = self.constants.biases[key].to(sums.dtype)
            sums = sums + along_channels(rounded, sums, run)
        return sums * along_channels(steps, sums, run)


class _RoundBiases(IntegerForm):
    """Computes the biases, which depend on the input of each call."""

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        (_, scale), weight, bias, *_ = args if len(args) > 2 else [*args, None]
        steps = self.constants.scales[quantisers.weights[key]]
        rounded = IntegerLayer(weight, steps, bias).bias_integers(scale)
        if rounded is not None:
            self.constants.biases[key] = rounded.to(torch.int32)
        return super().layer(quantisers, key, run, args)


class OnnxForm(IntegerForm):
    """ONNX operators: `QuantizeLinear` and `DequantizeLinear` around every operation.

    Runtimes replace each group by an integer kernel. Only `torch.onnx.export` can follow it.
    """

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Any:
        grid = self.constants.grids.get(name)
        if grid is None:
            return values, 1.0
        scale = torch.tensor(grid.scale)
        zero = torch.tensor(grid.zero, dtype=torch.uint8)
        rounded = _operator("QuantizeLinear", (values, scale, zero), torch.uint8, values.shape)
        shape = values.shape
        return _operator(
            "DequantizeLinear", (rounded, scale, zero), torch.float32, shape
        ), grid.scale

    def as_float(self, quantised: Any) -> Tensor:
        values: Tensor = quantised[0]
        return values

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        (values, scale), weight, bias, *rest = args if len(args) > 2 else [*args, None]
        steps = self.constants.scales[quantisers.weights[key]]
        weight = _dequantised(weight, steps)
        if bias is not None:
            bias = _dequantised(self.constants.biases[key], steps * scale)
        if run is not F.linear or values.dim() == 2:
            return run(values, weight, bias, *rest)
        rows = run(values.flatten(0, -2), weight, bias)  # Gemm, which has an integer kernel
        return rows.unflatten(0, values.shape[:-1])


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
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    quantisers = quantisers_of(network)
    assert quantisers is not None
    constants = Constants(_grids(quantisers), {}, {})
    for key, name in quantisers.weights.items():
        if name not in constants.scales:
            constants.scales[name] = _store_integers(network, quantisers, key)
    for path in quantisers.norms.values():
        network.set_submodule(path, nn.Identity())
    quantisers.arithmetic = _RoundBiases(constants)
    network(sample)
    quantisers.arithmetic = form(constants)
    return network


def _store_integers(network: nn.Module, quantisers: Quantisers, key: str) -> Tensor:
    """Replace the weight of a call by integers, and its bias by the folded one; returns scales."""
    owner, _, attribute = quantisers.weights[key].rpartition(".")
    module = network.get_submodule(owner)
    norm = quantisers.norm_of(key)
    weight, bias = getattr(module, attribute), getattr(module, "bias", None)
    layer = integer_layer(weight, None if norm is None else bias, norm, quantisers.weight_bits)
    integers = layer.weight.to(torch.int8)
    setattr(module, attribute, nn.Parameter(integers, requires_grad=False))
    if norm is not None:
        setattr(module, "bias", layer.bias)  # noqa: B010 - a tensor in place of a parameter
    return layer.scale


def _grids(quantisers: Quantisers) -> dict[str, Grid]:
    grids = {}
    for name in quantisers:
        its_range = quantisers.range_of(name)
        if its_range.is_observed:
            scale, zero = its_range.grid()
            grids[name] = Grid(float(scale), int(zero))
    return grids
