"""Similarity-preserving distillation: Tung & Mori, ICCV 2019, arXiv 1907.09682."""

from collections.abc import Sequence

from torch import Tensor

from kdrun.losses.base import DistillationLoss, TapRequest, feature_pairs, require_variant
from kdrun.losses.shapes import tap_names, unit
from kdrun.types import Batch, Outputs

# Default taps of each variant.
DEFAULT_TAPS = {"repdistiller": "last_stage", "paper": "stages", "cosine": "last_stage"}


class SimilarityPreserving(DistillationLoss):
    """‖G_teacher - G_student‖²_F / B², summed over the tap pairs.

    G is the batch similarity matrix `[B, B]` of the flattened activations Q `[B, channels·H·W]`:
    Q·Qᵀ with each row divided by its L2 norm (paper §3.1, eq. 1-4). Shapes may differ in
    everything but B. weight: 3000 (paper §4.1; RepDistiller uses the same).

    taps: None takes those of the variant.
    variant: see `variants`. `repdistiller` and `paper` share the formula and differ in the layers:
    the sum of the paper's eq. 4 runs over pairs of layers, the published tables use the last one.
    `cosine` divides the rows of Q before the product and leaves G as it is.
    Raises ConfigError for a variant that does not exist.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "sp"
    full_name = "Similarity-preserving"
    formula = (
        "‖G_t - G_s‖²_F / B², G = rows of Q·Qᵀ divided by their L2 norm, Q = features as `[B, D]`; "
        "sum over the tap pairs"
    )
    source = "Tung & Mori 2019, ICCV, arXiv 1907.09682, §3.1, eq. 1-4"
    compares_samples = True
    variants = {  # noqa: RUF012
        "repdistiller": "the last stage alone; rows of the Gram matrix divided by their norm",
        "paper": "all stages summed; rows of the Gram matrix divided by their norm",
        "cosine": "the last stage alone; rows of the features divided by their norm, then the Gram "
        "matrix as it is",
    }

    def __init__(
        self, taps: Sequence[TapRequest] | None = None, variant: str = "repdistiller"
    ) -> None:
        require_variant(type(self), variant)
        super().__init__([DEFAULT_TAPS[variant]] if taps is None else taps)
        self.variant = variant

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features `[B, ...]` of each tap pair."""
        similarity = cosines if self.variant == "cosine" else gram_rows
        losses = [
            (similarity(t.detach()) - similarity(s)).square().mean()
            for s, t in feature_pairs(self, student, teacher)
        ]
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return f"SP({tap_names(self)})"


def gram_rows(features: Tensor) -> Tensor:
    """Gram matrix `[B, B]` of features `[B, ...]`, each row divided by its norm; zero rows stay."""
    flat = features.flatten(1)
    return unit(flat @ flat.T, dim=1)


def cosines(features: Tensor) -> Tensor:
    """Pairwise cosines `[B, B]` of the rows of features `[B, ...]`; 0 for zero rows."""
    flat = unit(features.flatten(1), dim=1)
    return flat @ flat.T
