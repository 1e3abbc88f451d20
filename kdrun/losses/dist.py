"""Relations within and between classes: Huang et al., NeurIPS 2022, arXiv 2205.10536."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss, full_precision, require_variant
from kdrun.ranges import NotNegative, Temperature
from kdrun.types import Batch, Outputs

# Below this sum of squares a row has no variation that a correlation could be taken of.
NO_VARIATION = 1e-16
EPSILON = 1e-8  # what the authors' code adds to the product of the norms


class CorrelationDistillation(DistillationLoss):
    """beta · (1 - mean_n ρ(rows)) + gamma · (1 - mean_c ρ(columns)) of p = softmax(z / T) `[B, C]`.

    ρ is Pearson's correlation of the student's and the teacher's row (one image, all classes:
    inter) or column (one class, all images: intra). Where a side does not vary, ρ is 0 and
    passes no gradient. weight: 2 with 1 · CE, with T 4 (the published CIFAR recipe; T 1 on
    ImageNet). Weight and factor together make 32 at the start: networks without normalisation
    layers may need a lower learning rate, or variant paper.

    temperature: T, above 0. beta, gamma: weights of inter and intra.
    variant: see `variants`.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "dist"
    full_name = "Distillation from a stronger teacher"
    formula = (
        "T² · (beta · (1 - mean_n ρ(p_s[n,:], p_t[n,:])) + gamma · (1 - mean_c ρ(p_s[:,c], "
        "p_t[:,c]))), p = softmax(z / T), ρ = Pearson's correlation"
    )
    source = "Huang, You, Wang, Qian, Xu 2022, NeurIPS, arXiv 2205.10536"
    compares_samples = True
    variants: ClassVar[Mapping[str, str]] = {
        "code": "both parts times T², and 1e-8 added to the product of the norms in ρ, as in the "
        "authors' code that gave the published figures",
        "paper": "without T² and 1e-8, which the equations do not have",
    }

    def __init__(
        self,
        temperature: Temperature = 4.0,
        beta: NotNegative = 1.0,
        gamma: NotNegative = 1.0,
        variant: str = "code",
    ) -> None:
        super().__init__()
        require_variant(type(self), variant)
        self.temperature = temperature
        self.beta = beta
        self.gamma = gamma
        self.variant = variant

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        p = F.softmax(full_precision(student.logits) / self.temperature, dim=1)
        q = F.softmax(full_precision(teacher.logits) / self.temperature, dim=1)
        as_code = self.variant == "code"
        epsilon, factor = (EPSILON, self.temperature**2) if as_code else (0.0, 1.0)
        inter = 1.0 - correlation(p, q, epsilon).mean()
        intra = 1.0 - correlation(p.T, q.T, epsilon).mean()
        return factor * (self.beta * inter + self.gamma * intra)

    def target_temperature(self) -> float | None:
        return self.temperature

    def symbol(self) -> str:
        return f"DIST(T={self.temperature:g})"


def correlation(a: Tensor, b: Tensor, epsilon: float = 0.0) -> Tensor:
    """Pearson's correlation of the rows of `[N, M]` and `[N, M]`: `[N]`, 0 without variation.

    epsilon: added to the product of the two norms.
    """
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    squares_a, squares_b = a.square().sum(dim=1), b.square().sum(dim=1)
    varies = (squares_a > NO_VARIATION) & (squares_b > NO_VARIATION)
    ones = torch.ones_like(squares_a)
    norms = (
        torch.where(varies, squares_a, ones).sqrt() * torch.where(varies, squares_b, ones).sqrt()
    )
    return torch.where(varies, (a * b).sum(dim=1) / (norms + epsilon), torch.zeros_like(norms))
