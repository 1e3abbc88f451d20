"""Neuron selectivity transfer: Huang & Wang 2017, arXiv 1707.01219."""

from collections.abc import Sequence

from torch import Tensor

from kdrun.losses.base import DistillationLoss, LossContext, TapRequest
from kdrun.losses.shapes import map_pairs, require_places, tap_names, to_smaller, unit
from kdrun.types import Batch, Outputs


class NeuronSelectivity(DistillationLoss):
    """Maximum mean discrepancy of the channels of student and teacher, kernel k(a, b) = (a·b)².

    Each channel's map is flattened `[H·W]` and divided by its L2 norm. Loss of a pair and an
    image: mean k over teacher-teacher channels, plus student-student, minus twice student-teacher
    (the paper's polynomial kernel with d = 2, c = 0); mean over the batch, summed over the tap
    pairs. The larger of two maps is averaged down to the smaller; widths may differ.
    weight: 50 (the recipe of the tables in Tian et al., arXiv 1910.10699).

    Raises ConfigError for features without spatial size (fully connected layers).
    """

    id = "nst"
    full_name = "Neuron selectivity transfer"
    formula = (
        "mean k(t, t) + mean k(s, s) - 2 · mean k(s, t), k(a, b) = (a·b)² of channels with unit L2 "
        "norm over the places; mean over the batch, sum over the tap pairs"
    )
    source = "Huang & Wang 2017, arXiv 1707.01219"

    def __init__(self, taps: Sequence[TapRequest] = ("stages",)) -> None:
        super().__init__(taps)

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = map_pairs(self, student, teacher)
        require_places(self, pairs, "Use loss=sp, loss=fitnet or loss=vid for such networks.")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair."""
        losses = []
        for s, t in map_pairs(self, student, teacher):
            s, t = (unit(f.flatten(2), dim=2) for f in to_smaller(s, t))
            losses.append(squared_discrepancy(s, t))
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return f"NST({tap_names(self)})"


def squared_discrepancy(s: Tensor, t: Tensor) -> Tensor:
    """Scalar from unit rows `[B, C_s, P]` and `[B, C_t, P]`.

    (a·b)² is the inner product of the outer products a·aᵀ and b·bᵀ, so that the three means are
    the squared distance of two mean outer products `[P, P]`. The cheaper of both forms is used.
    """
    channels, places = max(s.shape[1], t.shape[1]), s.shape[2]
    if places <= channels:
        difference = s.mT @ s / s.shape[1] - t.mT @ t / t.shape[1]
        return difference.square().sum((1, 2)).mean()
    return _mean_kernel(t, t) + _mean_kernel(s, s) - 2.0 * _mean_kernel(s, t)


def _mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (a·b)² over the batch and all pairs of rows."""
    return (a @ b.mT).square().mean()
