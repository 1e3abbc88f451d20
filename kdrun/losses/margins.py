"""Margins of OFD: the mean negative pre-activation of each teacher channel.

E[x | x < 0] (Heo et al., ICCV 2019, arXiv 1904.01866, §3), computed from the preceding batch
normalisation or measured.
"""

import math

import torch
from torch import Tensor, nn

from kdrun.losses.base import NetworkView

MEASURED_BATCHES = 100  # training batches that are measured; then the margins are fixed
SMALLEST_SHARE = 0.001  # with a smaller share of negative values, FAR_BELOW is used
FAR_BELOW = 3.0  # margin in standard deviations below zero

Norm = nn.BatchNorm1d | nn.BatchNorm2d


class FixedMargin(nn.Module):
    """Margins `[C, 1, 1]` computed before training."""

    def __init__(self, margin: Tensor) -> None:
        super().__init__()
        self.register_buffer("margin", margin[:, None, None])

    def forward(self, teacher: Tensor) -> Tensor:
        """`[C, 1, 1]`."""
        margin: Tensor = self.get_buffer("margin")
        return margin


class MeasuredMargin(nn.Module):
    """Margins `[C, 1, 1]` measured on the training's first batches.

    negative: sum over batches of the mean over places of min(x, 0). share: of the places below
    zero, summed alike. A channel that was never negative has the margin 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("negative", torch.zeros(channels))
        self.register_buffer("share", torch.zeros(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, teacher: Tensor) -> Tensor:
        """`[C, 1, 1]`, after counting in the pre-activations `[B, C, H, W]` while training."""
        negative, share = self.get_buffer("negative"), self.get_buffer("share")
        batches = self.get_buffer("batches")
        if self.training:
            with torch.no_grad():
                counts = (batches < MEASURED_BATCHES).to(teacher.dtype)
                negative += counts * teacher.clamp_max(0.0).mean((0, 2, 3))
                share += counts * (teacher < 0).to(teacher.dtype).mean((0, 2, 3))
                batches += 1
        return (negative / torch.where(share > 0, share, 1.0))[:, None, None]


def batch_norm_before(view: NetworkView, tap: str, channels: int) -> Norm | None:
    """The batch normalisation whose output is the pre-activation at a tap, if one can be told.

    It is the tapped module itself; the last one inside it; or, at the input of an activation, the
    last one that its block holds before it (of a residual sum, that of the main path).
    """
    path = view.paths.get(tap, tap)
    module = view.module(tap)
    if path.endswith(":in"):
        parent = view.network.get_submodule(path.removesuffix(":in").rpartition(".")[0])
        candidates = list(parent.children())
        if isinstance(parent, nn.Sequential):  # elsewhere the order of definition says nothing
            candidates = candidates[: candidates.index(module)]
    else:
        candidates = list(module.modules())
    norms = [m for m in candidates if isinstance(m, Norm) and m.num_features == channels]
    return norms[-1] if norms and norms[-1].affine else None


def margin_of(norm: Norm) -> Tensor:
    """E[x | x < 0] of x ~ N(β, γ²) for each channel `[C]`: β - |γ| φ(β/|γ|) / Φ(-β/|γ|).

    Where fewer than 0.1 % of the values are negative it is -3 |γ|.
    """
    means = norm.bias.detach().double()
    deviations = norm.weight.detach().double().abs()
    ratios = means / deviations.clamp_min(1e-12)
    share = 0.5 * torch.erfc(ratios / math.sqrt(2.0))
    density = torch.exp(-0.5 * ratios.square()) / math.sqrt(2.0 * math.pi)
    usual = share > SMALLEST_SHARE
    below = means - deviations * density / torch.where(usual, share, 1.0)
    return torch.where(usual, below, -FAR_BELOW * deviations).to(norm.weight.dtype)
