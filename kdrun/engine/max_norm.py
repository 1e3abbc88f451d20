"""An upper bound on the weights that lead into each unit."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


class MaxNorm:
    """Holds the incoming weight vector of every unit to an L2 norm of at most `limit`.

    A longer vector is shortened to the limit; the others are left alone, bit for bit. Units are the
    outputs of linear layers and the output channels of convolutions; a bias is no part of the
    vector. Only weights that are trained are touched, and nothing is read back from the device.

    limit: 0 bounds nothing.
    Source: Hinton et al. 2012, arXiv 1207.0580; Srivastava et al. 2014, JMLR 15, section 5.1.
    """

    def __init__(self, modules: Iterable[nn.Module], limit: float) -> None:
        self.limit = limit
        self.weights = [part for module in modules for part in _weights(module)] if limit else []

    @torch.no_grad()
    def apply(self) -> None:
        """Shorten what is too long; to be called after each step of the optimiser."""
        for weight, units in self.weights:
            weight.renorm_(2, units, self.limit)


def _weights(module: nn.Module) -> list[tuple[Tensor, int]]:
    """(weight, its dimension of units) of a layer of units; none for other modules."""
    weight = module._parameters.get("weight")
    if weight is None or not weight.requires_grad:
        return []
    if isinstance(module, _ConvTransposeNd):  # [in, out / groups, ...]: a group has its own units
        return [(part, 1) for part in weight.detach().chunk(module.groups)]
    return [(weight.detach(), 0)] if isinstance(module, nn.Linear | _ConvNd) else []
