"""Integer grids of weights and activations.

Weights are symmetric with one scale per output channel; activations are `uint8` with one scale and
one zero point per tensor: Jacob et al. (arXiv 1712.05877), section 2.1, and Krishnamoorthi (arXiv
1806.08342), section 3. One scale per output channel makes the grid independent of a following batch
normalisation: scaling a channel scales its grid, so that folding changes no rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from kdrun.models.quantisation.kernels import HIGHEST, Grid

# student.quantize → bits of the weights; activations have 8.
WEIGHT_BITS = {"int8": 8, "w4a8": 4}
SMALLEST_SCALE = 1e-6  # of weights, so that biases up to 10 or more fit into 32 bits
LARGEST_BIAS = 2.0**30  # as an integer, with room for the sums
MOMENTUM = 0.05  # of the moving average of activation ranges


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Step of each output channel `[C]`, from the largest magnitude."""
    highest = weight.detach().abs().flatten(1).amax(dim=1)
    return (highest / (2 ** (bits - 1) - 1)).clamp(min=SMALLEST_SCALE)


def weight_integers(weight: Tensor, scale: Tensor) -> Tensor:
    """`[C, ...]` as integers, in the dtype of `weight`. scale: `[C]`."""
    return torch.round(weight / scale.view(-1, *[1] * (weight.dim() - 1)))


@dataclass(frozen=True)
class IntegerLayer:
    """A layer's constants, batch normalisation folded.

    weight: `[C, ...]`, integers in float32. scale: `[C]`. bias: `[C]`, in full precision.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def bias_integers(self, input_scale: Tensor | float) -> Tensor | None:
        """The bias in units of (input scale · weight scale), rounded."""
        if self.bias is None:
            return None
        integers = torch.round(self.bias / (self.scale * input_scale))
        return integers.clamp(-LARGEST_BIAS, LARGEST_BIAS)


@torch.no_grad()
def integer_layer(weight: Tensor, bias: Tensor | None, norm: Any, bits: int) -> IntegerLayer:
    """The constants of a convolution or linear layer. norm: the BatchNorm that follows, or None."""
    scale = weight_scale(weight, bits)
    if norm is not None:
        rounded = weight_integers(weight, scale) * scale.view(-1, *[1] * (weight.dim() - 1))
        weight, bias = fuse_conv_bn_weights(
            nn.Parameter(rounded, requires_grad=False), bias, norm.running_mean, norm.running_var,
            norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        scale = weight_scale(weight, bits)
    return IntegerLayer(weight_integers(weight, scale), scale, bias)


def fake_quantise_weight(weight: Tensor, bits: int) -> Tensor:
    """`weight` rounded to its grid; the gradient passes unchanged."""
    scale = weight_scale(weight, bits)
    highest = 2 ** (bits - 1) - 1
    zero = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -highest, highest)


class ActivationRange(nn.Module):
    """The range of one activation tensor: a moving average of the smallest and largest values.

    The range contains 0. Both ends are 0 until the first batch was observed; the tensor then passes
    unchanged.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """Move the range towards that of a batch; the first batch sets it."""
        ends = torch.stack(torch.aminmax(values.detach().float())) * torch.tensor(
            [-1.0, 1.0], device=values.device
        )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(ends, torch.distributed.ReduceOp.MAX)
        low, high = ends.clamp(min=0).unbind()
        step = torch.where(self.high > self.low, MOMENTUM, 1.0)
        self.low += step * (-low - self.low)
        self.high += step * (high - self.high)

    def grid(self) -> Grid:
        """Its grid; the range must have been observed."""
        scale = (self.high - self.low) / HIGHEST
        return Grid(scale, torch.round(-self.low / scale).clamp(0, HIGHEST))

    def fake_quantise(self, values: Tensor) -> Tensor:
        """`values` rounded to the grid; values outside it are clipped and get no gradient.

        The range must have been observed.
        """
        grid = self.grid()
        return torch.fake_quantize_per_tensor_affine(
            values, grid.scale, grid.zero.to(torch.int32), 0, HIGHEST
        )

    @property
    def is_observed(self) -> bool:
        """Whether there is a range; a tensor that was always 0 has none."""
        return bool(self.high > self.low)
