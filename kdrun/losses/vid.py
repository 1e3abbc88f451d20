"""Variational information distillation: Ahn et al., CVPR 2019, arXiv 1904.05835."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, TapRequest, require_variant
from kdrun.losses.shapes import map_pairs, tap_names, to_smaller
from kdrun.ranges import Positive
from kdrun.types import Batch, Outputs

SMALLEST_VARIANCE = 1e-5


class VariationalInformation(DistillationLoss):
    """Negative log-likelihood of the teacher's map under a Gaussian whose mean the student gives.

    μ = three 1×1 convolutions without bias (ReLU between) from the student's `[B, C_s, H, W]` to
    the teacher's width; σ² = softplus(ρ) + 1e-5, one trained ρ per teacher channel. Loss of a
    pair: ½ [(μ - t)² / σ² + log σ²], mean over all elements; summed over the tap pairs. It can be
    negative. The larger of two maps is averaged down to the smaller. weight: 1 (the recipe of the
    tables in Tian et al., arXiv 1910.10699).

    variance: σ² at the start, above 1e-5.
    variant: see `variants`.
    Raises ConfigError for a variance that is too small and a variant that does not exist.
    """

    id = "vid"
    full_name = "Variational information distillation"
    formula = (
        "½ [(μ(f_s) - f_t)² / σ² + log σ²], σ² = softplus(ρ) + 1e-5 per channel; mean over all "
        "elements, sum over the tap pairs"
    )
    source = "Ahn et al. 2019, CVPR, arXiv 1904.05835"
    variants = {  # noqa: RUF012
        "repdistiller": "ρ is trained, as in the paper",
        "mdistiller": "ρ keeps its first value: a squared error over a constant",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages",),
        variance: Positive = 5.0,
        variant: str = "repdistiller",
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        if variance <= SMALLEST_VARIANCE:
            raise ConfigError(
                f"loss.vid.variance={variance:g} must be above {SMALLEST_VARIANCE:g} (usual: 5)."
            )
        self.variance = variance
        self.variant = variant
        self.means = nn.ModuleList()
        self.rho = nn.ParameterList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        above = self.variance - SMALLEST_VARIANCE
        start = above + math.log(-math.expm1(-above))  # the inverse of softplus
        pairs = map_pairs(self, student, teacher)
        self.means = nn.ModuleList(mean_network(s.shape[1], t.shape[1]) for s, t in pairs)
        trained = self.variant == "repdistiller"
        self.rho = nn.ParameterList(
            nn.Parameter(torch.full((t.shape[1],), start), requires_grad=trained) for _, t in pairs
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair."""
        losses = []
        pairs = map_pairs(self, student, teacher)
        for mean, rho, (s, t) in zip(self.means, self.rho, pairs, strict=True):
            s, t = to_smaller(s, t)
            variance = (F.softplus(rho) + SMALLEST_VARIANCE)[:, None, None]
            losses.append(0.5 * ((mean(s) - t).square() / variance + variance.log()).mean())
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return f"VID({tap_names(self)})"


def mean_network(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Three 1×1 convolutions: `[B, C_s, H, W]` → `[B, C_t, H, W]`."""
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
    )
