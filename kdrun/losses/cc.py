"""Correlation congruence: Peng et al., ICCV 2019, arXiv 1904.01802."""

import math

import torch
from torch import Tensor, nn

from kdrun.losses.base import DistillationLoss, LossContext, require_variant
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.shapes import unit
from kdrun.ranges import Channels, Layers, Positive
from kdrun.types import Batch, Outputs


class CorrelationCongruence(DistillationLoss):
    """Match the correlations between the samples of a batch.

    `repdistiller`: e = a trained linear layer of width `dim` on each network's embedding;
    δ_n = |e_s - e_t| of image n `[dim]`; mean over n of Σ_d δ_n · δ_{n+1}, neighbours as the batch
    has them. weight: 0.02 (the recipe of the tables in Tian et al., arXiv 1910.10699). This form
    came from the paper's first author, and is not in the paper. A batch of one image gives 0.

    `paper`: ‖K_s - K_t‖²_F / B², K = the Gaussian kernel exp(-γ ‖x_i - x_j‖²) of the unit
    embeddings, expanded to order 2: e^(-2γ) Σ_p (2γ)^p / p! · (x_i · x_j)^p (eq. 6-8). No layer
    is trained. weight: about 100 is in use (AberHu's collection, CIFAR).

    dim: width of the linear layers. gamma, order: of the kernel, γ above 0.
    variant: see `variants`.
    Raises ConfigError for other values of these.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "cc"
    full_name = "Correlation congruence"
    formula = "Σ_d δ_n · δ_{n+1}, δ_n = |W_s e_s - W_t e_t| of image n; mean over n"
    source = "Peng et al. 2019, ICCV, arXiv 1904.01802, §3.2, eq. 6-8 (variant paper)"
    compares_samples = True
    variants = {  # noqa: RUF012
        "repdistiller": "products of neighbouring images' differences",
        "paper": "squared difference of the kernel matrices, mean over the B² pairs",
    }
    reads_embedding = True

    def __init__(
        self,
        dim: Channels = 128,
        gamma: Positive = 0.4,
        order: Layers = 2,
        variant: str = "repdistiller",
    ) -> None:
        super().__init__()
        require_variant(type(self), variant)
        self.dim = dim
        self.gamma = gamma
        self.order = order
        self.variant = variant
        self.embed_student: nn.Module = nn.Identity()
        self.embed_teacher: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        if self.variant == "repdistiller":
            s, t = embedding_pair(student, teacher)
            self.embed_student = nn.Linear(s.shape[1], self.dim)
            self.embed_teacher = nn.Linear(t.shape[1], self.dim)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from embeddings `[B, D_s]` and `[B, D_t]`."""
        s, t = embedding_pair(student, teacher)
        if self.variant == "paper":
            difference = kernel(s, self.gamma, self.order) - kernel(t, self.gamma, self.order)
            return difference.square().mean()
        delta = (self.embed_student(s) - self.embed_teacher(t)).abs()
        return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)


def kernel(embeddings: Tensor, gamma: float, order: int) -> Tensor:
    """Taylor series of the Gaussian kernel, `[B, B]`, of embeddings `[B, D]` at unit length."""
    directions = unit(embeddings, dim=1)
    cosines = directions @ directions.T
    series = [(2 * gamma) ** p / math.factorial(p) * cosines.pow(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(series).sum(dim=0)
