"""Attention transfer: Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from kdrun.losses.base import DistillationLoss, LossContext, TapRequest, require_variant
from kdrun.losses.shapes import map_pairs, require_places, tap_names, to_smaller, unit
from kdrun.ranges import Range
from kdrun.types import Batch, Outputs


class AttentionTransfer(DistillationLoss):
    """Squared difference of the normalised attention maps, summed over the tap pairs.

    The attention map `[B, H·W]` of features `[B, C, H, W]` is the mean of |f|^p over the channels,
    divided by its L2 norm over the places. The larger of two maps is averaged down to the smaller
    first; widths may differ. Loss of a pair: mean over B and H·W of (A_s - A_t)². weight: 1000
    (the authors' code and the tables of Tian et al., arXiv 1910.10699), for images of 32×32 pixels:
    the mean over the places of a map of norm 1 falls with their number, so that the same weight
    counts sixteen times as much for 8×8 pixels, where it drowns out the labels; use 1 to 10 there.

    power: p, at least 1.
    variant: see `variants`. `paper` is eq. 2, whose norm is not squared; the paper's β is a
    constant divided by the elements of the map and the batch size, and both divisions are done
    here, so that the weight stays 1000.
    Raises ConfigError for features without spatial size (fully connected layers), for p below 1
    and for a variant that does not exist.
    """

    id = "at"
    full_name = "Attention transfer"
    formula = (
        "(A_s - A_t)², A = mean_c |f|^p divided by its L2 norm over the places; mean over batch "
        "and places, sum over the tap pairs"
    )
    source = "Zagoruyko & Komodakis 2017, ICLR, arXiv 1612.03928, §3.1, eq. 2"
    variants = {  # noqa: RUF012
        "repdistiller": "mean squared difference of the maps",
        "paper": "½ · ‖A_s - A_t‖₂ / (H·W), not squared; mean over the batch",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages",),
        power: Annotated[float, Range(low=1, high=100)] = 2.0,
        variant: str = "repdistiller",
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        self.power = power
        self.variant = variant

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = map_pairs(self, student, teacher)
        require_places(self, pairs, "Use loss=sp, loss=fitnet or loss=vid for such networks.")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair."""
        losses = []
        for s, t in map_pairs(self, student, teacher):
            s, t = to_smaller(s, t)
            difference = attention(s, self.power) - attention(t, self.power)
            if self.variant == "paper":
                distances = torch.linalg.vector_norm(difference, dim=1)
                losses.append(0.5 * distances.mean() / difference.shape[1])
            else:
                losses.append(difference.square().mean())
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return f"AT({tap_names(self)})"


def attention(features: Tensor, power: float) -> Tensor:
    """Normalised attention map `[B, H·W]` of features `[B, C, H, W]`; of zeros it is zero."""
    raised = features.square() if power == 2.0 else features.abs().pow(power)
    return unit(raised.mean(dim=1).flatten(1), dim=1)
