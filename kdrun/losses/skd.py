"""Streamlined distillation: instance relations under a Mahalanobis distance (CVPR 2026)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss, full_precision, require_variant
from kdrun.losses.logit_parts import mean_divergence
from kdrun.losses.shapes import unit
from kdrun.ranges import NotNegative, Positive, Temperature
from kdrun.types import Batch, Outputs


class Streamlined(DistillationLoss):
    """KL of the soft targets plus the Mahalanobis norm of the difference of logit Gram matrices.

    G is the Gram matrix `[B, B]` of L2-normalised logits, d_i a row of G_s - G_t, S the sample
    covariance of these rows; the second part is mean_i sqrt(d_iᵀ (S + ridge · I)⁻¹ d_i). It costs
    a Cholesky factorisation of a B × B matrix. weight: 0.9 with 0.1 · CE (the authors' default;
    0.5 and 0.5 for ResNet-32x4 → ResNet-8x4).

    temperature: T of the KL part, above 0. ridge: added to the covariance's diagonal, above 0.
    relation: weight of the second part.
    variant: see `variants`; the two published codes are different functions.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "skd"
    full_name = "Streamlined knowledge distillation"
    formula = (
        "a · T² · KL(p_t ‖ p_s) + b · relation · mean_i sqrt(d_iᵀ (cov(d) + ridge · I)⁻¹ d_i), "
        "d = G_s - G_t, G = Z·Zᵀ / C of L2-normalised logits; a, b = share of images and classes "
        "up to the teacher's median confidence"
    )
    source = "HyunJunSik/StreamLined (CVPR 2026, the authors' code); torchdistill for `plain`"
    compares_samples = True
    variants: ClassVar[Mapping[str, str]] = {
        "code": "Gram / C, T² · KL, both parts scaled by the share of images (classes) whose "
        "teacher confidence is at most the median, as the authors' masks do",
        "plain": "Gram as it is, KL without T², no scaling (torchdistill's losses)",
    }
    soft = True

    def __init__(
        self,
        temperature: Temperature = 4.0,
        ridge: Positive = 0.1,
        relation: NotNegative = 1.0,
        variant: str = "code",
    ) -> None:
        require_variant(type(self), variant)
        super().__init__()
        self.temperature = temperature
        self.ridge = ridge
        self.relation = relation
        self.variant = variant

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        z_student, z_teacher = full_precision(student.logits), full_precision(teacher.logits)
        soft = mean_divergence(z_student / self.temperature, z_teacher / self.temperature)
        classes = z_student.shape[1]
        scale = 1.0 / classes if self.variant == "code" else 1.0
        difference = (_gram(z_student) - _gram(z_teacher)) * scale
        relation = self.relation * mahalanobis_norm(difference, self.ridge)
        if self.variant == "plain":
            return soft + relation
        confidence = F.softmax(z_teacher, dim=1)
        images = _lower_share(confidence.amax(dim=1))
        kinds = _lower_share(confidence.sum(dim=0))
        return self.temperature**2 * soft * images + relation * kinds

    def symbol(self) -> str:
        return f"SKD(T={self.temperature:g})"


def mahalanobis_norm(rows: Tensor, ridge: float) -> Tensor:
    """mean_i sqrt(d_iᵀ (S + ridge · I)⁻¹ d_i) of rows `[B, N]`, S their sample covariance."""
    centred = rows - rows.mean(dim=0)
    covariance = centred.T @ centred / max(len(rows) - 1, 1)
    identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    factor = torch.linalg.cholesky(covariance + ridge * identity)
    squares = torch.linalg.solve_triangular(factor, rows.T, upper=False).square().sum(dim=0)
    positive = squares > 0  # the root of 0 has no gradient
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0).mean()


def _gram(logits: Tensor) -> Tensor:
    rows = unit(logits, dim=1)
    return rows @ rows.T


def _lower_share(values: Tensor) -> Tensor:
    """Share of values up to their median."""
    return (values <= values.quantile(0.5)).to(values.dtype).mean()
