"""Similarity-preserving distillation: Tung & Mori, ICCV 2019, arXiv 1907.09682."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import TapRequest, Term, feature_pairs
from kdrun.types import Batch, Outputs


class SimilarityPreserving(Term):
    """‖G_teacher - G_student‖²_F / B², summed over the tap pairs.

    G is the batch similarity matrix Q·Qᵀ of the flattened activations Q `[B, channels·H·W]`, each
    row divided by its L2 norm (paper §3.1, eq. 1-4). Shapes may differ in everything but B.
    weight: 3000 (paper §4.1).
    """

    id = "sp"
    full_name = "Similarity-preserving"
    formula = (
        "‖G_t - G_s‖²_F / B², G = rows of Q·Qᵀ divided by their L2 norm, Q = features as `[B, D]`; "
        "sum over the tap pairs"
    )
    source = "Tung & Mori 2019, ICCV, arXiv 1907.09682, §3.1, eq. 1-4"

    def __init__(self, taps: Sequence[TapRequest] = ("last_stage",)) -> None:
        super().__init__(taps)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features `[B, ...]` of each tap pair."""
        losses = [
            (similarity(t) - similarity(s)).square().mean()
            for s, t in feature_pairs(self, student, teacher)
        ]
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return "SP(" + "+".join(s for s, _ in self.pairs) + ")"


def similarity(features: Tensor) -> Tensor:
    """Row-normalised Gram matrix `[B, B]` of features `[B, ...]`; zero rows stay zero."""
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, p=2.0, dim=1)
