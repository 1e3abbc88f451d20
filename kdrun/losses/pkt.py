"""Probabilistic knowledge transfer: Passalis & Tefas, ECCV 2018, arXiv 1803.10837."""

import torch
from torch import Tensor

from kdrun.losses.base import DistillationLoss, require_variant
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.shapes import unit
from kdrun.types import Batch, Outputs

EPSILON = 1e-7


class ProbabilisticTransfer(DistillationLoss):
    """KL of the neighbour probabilities between the images of a batch.

    Similarity of two images: (1 + cosine of their embeddings `[B, D]`) / 2; each row of the matrix
    `[B, B]` is divided by its sum. Loss: mean over all B² pairs of
    p_t · log((p_t + ε) / (p_s + ε)), ε = 1e-7. Widths may differ. weight: 30000 (the recipe of the
    tables in Tian et al., arXiv 1910.10699; the mean over B² explains its size).

    variant: see `variants`. With `paper` the loss is B²-fold: use a weight of about 30000 / B².
    Raises ConfigError for a variant that does not exist.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "pkt"
    full_name = "Probabilistic knowledge transfer"
    formula = (
        "p_t · log((p_t + ε) / (p_s + ε)), p = (1 + cos(e_i, e_j)) / 2, rows divided by their sum; "
        "mean over all pairs of images"
    )
    source = "Passalis & Tefas 2018, ECCV, arXiv 1803.10837, §3"
    compares_samples = True
    variants = {  # noqa: RUF012
        "repdistiller": "an image is its own neighbour too; mean over the B² pairs",
        "paper": "pairs of different images only (eq. 1-6); their sum",
    }
    reads_embedding = True

    def __init__(self, variant: str = "repdistiller") -> None:
        super().__init__()
        require_variant(type(self), variant)
        self.variant = variant

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from embeddings `[B, D_s]` and `[B, D_t]`."""
        s, t = embedding_pair(student, teacher)
        with_itself = self.variant == "repdistiller"
        p_s, p_t = neighbours(s, with_itself), neighbours(t, with_itself)
        divergence = p_t * ((p_t + EPSILON) / (p_s + EPSILON)).log()
        return divergence.mean() if with_itself else divergence.sum()


def neighbours(embeddings: Tensor, with_itself: bool) -> Tensor:
    """Probabilities `[B, B]` of embeddings `[B, D]`; a row without neighbours is zero."""
    directions = unit(embeddings, dim=1)
    similarity = (directions @ directions.T + 1.0) / 2.0
    if not with_itself:
        similarity = similarity * (1.0 - torch.eye(len(similarity)).to(similarity))
    return similarity / similarity.sum(dim=1, keepdim=True).clamp_min(EPSILON)
