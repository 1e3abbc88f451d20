"""How integer kernels compute: the arithmetic of ONNX Runtime on x86 CPUs, in floats.

Two programs that round equal real numbers in another order disagree on ties, about once in 10^6
activations. One step of one activation reaches the logits of a deep network, so that about one
image in ten gets other logits. Here every result is rounded to the grid of its reader in one step
and in the order of the kernels, bit by bit. float32 holds sums of integers exactly up to 2^24.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HIGHEST = 255


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of an activation: float32 scalars."""

    scale: Tensor
    zero: Tensor

    def integers(self, values: Tensor) -> Tensor:
        """`values` in units of `scale`, rounded as `QuantizeLinear` does, without zero point.

        From -zero to 255 - zero, in the dtype of `values`.
        """
        return self._clipped(torch.round(values / self.scale) + self.zero)

    def requantised(self, sums: Tensor, step: Tensor) -> Tensor:
        """Sums of products in units of `step` as integers of this grid (`QLinearConv`, `QGemm`).

        One multiplication by step / scale. step: a scalar, or one per channel that broadcasts.
        """
        return self._clipped(torch.round(sums * (step / self.scale)) + self.zero)

    def _clipped(self, integers: Tensor) -> Tensor:
        return integers.clamp(0, HIGHEST) - self.zero


@dataclass(frozen=True)
class Quantised:
    """An activation on its grid. integers: without zero point. grid: None: floats, unchanged."""

    integers: Tensor
    grid: Grid | None

    @property
    def values(self) -> Tensor:
        """As floats."""
        return self.integers if self.grid is None else self.integers * self.grid.scale


def add(first: Quantised, second: Quantised, reader: Grid | None) -> Tensor:
    """The sum of two activations, rounded to the grid of its reader (`QLinearAdd`).

    The kernel sums with fused multiply-add: `fma(a, a_ratio, fma(b, b_ratio, offset))`.
    """
    if first.grid is None or second.grid is None or reader is None:
        return first.values + second.values
    a, b = (one.grid for one in (first, second) if one.grid is not None)
    a_ratio, b_ratio = a.scale / reader.scale, b.scale / reader.scale
    offset = reader.zero - _fma(a.zero, a_ratio, b_ratio * b.zero)
    sums = _fma(second.integers + b.zero, b_ratio, offset)
    sums = _fma(first.integers + a.zero, a_ratio, sums)
    return (torch.round(sums).clamp(0, HIGHEST) - reader.zero) * reader.scale


def multiply(first: Quantised, second: Quantised, reader: Grid | None) -> Tensor:
    """The product of two activations, rounded to the grid of its reader (`QLinearMul`).

    The kernel adds the zero point before it rounds.
    """
    if first.grid is None or second.grid is None or reader is None:
        return first.values * second.values
    ratio = first.grid.scale * second.grid.scale / reader.scale
    products = first.integers * second.integers * ratio + reader.zero
    return (torch.round(products).clamp(0, HIGHEST) - reader.zero) * reader.scale


def _fma(integers: Tensor, factor: Tensor, summand: Tensor) -> Tensor:
    """`integers * factor + summand`, rounded once to float32: float64 holds it exactly."""
    return (integers.double() * factor.double() + summand.double()).float()
