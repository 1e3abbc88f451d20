"""Information-theoretic representation distillation: Miles et al., BMVC 2022, arXiv 2112.00459."""

from typing import Annotated

import torch
from torch import Tensor, nn

from kdrun.losses.adapters import DEFAULT, linear_adapter, require_adapter
from kdrun.losses.base import DistillationLoss, LossContext
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.shapes import unit
from kdrun.ranges import NotNegative, Range
from kdrun.types import Batch, Outputs

SMALLEST_VARIANCE = 1e-12
Order = Annotated[float, Range(above=0, high=4)]  # larger powers of 1 - c under- or overflow


class InformationTheoretic(DistillationLoss):
    """correlation · L_corr + mutual · L_mi of the embeddings `[B, D_s]` and `[B, D_t]`.

    L_corr = log2 Σ_d ((c_d - 1)²)^alpha, c_d = Σ_n s_nd t_nd / B with both sides standardised over
    the batch by the sample deviation (B - 1), after a linear layer D_s → D_t on the student's. As
    in the authors' code the sum is divided by B, so c_d ≤ (B - 1) / B and the logarithm stays
    finite. A dimension without variance in the batch has c_d = 0 and no gradient.

    L_mi = Σ_ij (G_s² - G_st²), G_s the Gram matrix `[B, B]` of cosines of the student and G_st its
    product, entry by entry, with the teacher's, each divided by its trace. The linear layer comes
    before it only where D_s differs from D_t. weight: 1 with 1 · CE; correlation 2, mutual 1,
    alpha 1.01 (the authors' setting for WRN-40-2 → WRN-16-2).

    correlation, mutual: weights of the parts. alpha: order of the entropy, above 0, at most 4.
    adapter: `orthogonal` keeps the linear layer orthogonal, without bias.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "itrd"
    full_name = "Information-theoretic representation distillation"
    formula = (
        "correlation · log2 Σ_d ((c_d - 1)²)^alpha + mutual · Σ_ij (G_s² - G_st²), c_d the "
        "correlation of dimension d, G cosines over the batch divided by their trace, G_st from "
        "G_s ∘ G_t"
    )
    source = "Miles, Lopez-Rodriguez, Mikolajczyk 2022, BMVC, arXiv 2112.00459"
    compares_samples = True
    reads_embedding = True

    def __init__(
        self,
        correlation: NotNegative = 2.0,
        mutual: NotNegative = 1.0,
        alpha: Order = 1.01,
        adapter: str = DEFAULT,
    ) -> None:
        super().__init__()
        require_adapter(self.id, adapter)
        self.adapter = adapter
        self.correlation = correlation
        self.mutual = mutual
        self.alpha = alpha
        self.projection: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        embeddings = embedding_pair(student, teacher)
        widths = embeddings[0].shape[1], embeddings[1].shape[1]
        self.projection = linear_adapter(*widths, self.adapter)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the embeddings `[B, D_s]` and `[B, D_t]`."""
        raw, target = embedding_pair(student, teacher)
        projected = self.projection(raw)
        compared = raw if raw.shape[1] == target.shape[1] else projected
        return self.correlation * correlation_loss(
            projected, target, self.alpha
        ) + self.mutual * mutual_information_loss(compared, target)

    def symbol(self) -> str:
        return f"ITRD({self.correlation:g}, {self.mutual:g})"


def correlation_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """log2 Σ_d ((c_d - 1)²)^alpha of features `[B, D]`, c the correlation of each dimension."""
    products = _standardised(student) * _standardised(teacher)
    distance = (products.mean(dim=0) - 1).square()
    return torch.log2(distance.pow(alpha).sum())


def mutual_information_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_ij (G_s² - G_st²) of features `[B, D]`; see `InformationTheoretic`."""
    gram = _gram(student)
    joint = gram * _gram(teacher)
    return (_by_trace(gram).square() - _by_trace(joint).square()).sum()


def _standardised(features: Tensor) -> Tensor:
    """`[B, D]` less its mean over the batch, by the sample deviation; 0 without variance."""
    centred = features - features.mean(dim=0)
    variance = centred.square().sum(dim=0) / max(len(features) - 1, 1)
    varies = variance > SMALLEST_VARIANCE
    deviation = torch.where(varies, variance, 1.0).sqrt()
    return torch.where(varies, centred / deviation, 0.0)


def _gram(features: Tensor) -> Tensor:
    rows = unit(features, dim=1)
    return rows @ rows.T


def _by_trace(matrix: Tensor) -> Tensor:
    trace = matrix.diagonal().sum()
    return matrix / torch.where(trace > 0, trace, 1.0)
