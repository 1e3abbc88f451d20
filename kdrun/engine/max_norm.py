"""Max-norm constraint on the incoming weights of each unit."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


class MaxNorm:
    """Limits the L2 norm of every unit's incoming weight vector to `limit`.

    Longer vectors are rescaled to the limit; the others stay unchanged, bit for bit. Units are the
    outputs of linear layers and the output channels of convolutions; biases are not included. Only
    trainable weights are constrained, and the device is not synchronised.

    limit: maximum norm; 0 disables the constraint.
    Source: Hinton et al. 2012, arXiv 1207.0580; Srivastava et al. 2014, JMLR 15, section 5.1.
    """

    def __init__(self, modules: Iterable[nn.Module], limit: float) -> None:
        self.limit = limit
        self.weights = [part for module in modules for part in _weights(module)] if limit else []

    @torch.no_grad()
    def apply(self) -> None:
        """Rescale the weights; call after each optimiser step."""
        for weight, units in self.weights:
            weight.renorm_(2, units, self.limit)


def _weights(module: nn.Module) -> list[tuple[Tensor, int]]:
    """(weight, dimension of the units) pairs of a linear or convolutional layer, else empty."""
    weight = module._parameters.get("weight")
    if weight is None or not weight.requires_grad:
        return []
    if isinstance(module, _ConvTransposeNd):  # [in, out / groups, ...]: units differ per group
        return [(part, 1) for part in weight.detach().chunk(module.groups)]
    return [(weight.detach(), 0)] if isinstance(module, nn.Linear | _ConvNd) else []
