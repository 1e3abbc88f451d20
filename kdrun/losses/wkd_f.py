"""Wasserstein distillation of features: Lv et al., NeurIPS 2024, arXiv 2412.08139."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import DistillationLoss, LossContext, TapRequest
from kdrun.losses.shapes import map_pairs, tap_names
from kdrun.ranges import NotNegative, Positive
from kdrun.types import Batch, Outputs


class WassersteinFeatures(DistillationLoss):
    """Squared Wasserstein distance between Gaussians of the features, averaged over the batch.

    Each channel of a map `[B, C, H, W]` is a Gaussian over its places: mean μ `[B, C]` and
    deviation σ = sqrt(sample variance + eps). The loss is ratio · ‖μ_t - μ_s‖² + ‖σ_t - σ_s‖²,
    norms over channels, summed over the tap pairs. The student passes through a 1×1 convolution,
    batch normalisation and ReLU first. A map of a single place has variance 0. weight: 0.08 with
    1 · CE; ratio 4, eps 1e-5 (the published code, which lets the weight fall by a cosine after
    epoch 150 of 240: `loss.wkd_f.decay_after=150`).

    taps: features compared. ratio: weight of the means. eps: added to the variances, above 0.
    """

    id = "wkd_f"
    full_name = "Wasserstein distance of features"
    formula = (
        "ratio · ‖μ_t - μ_s‖² + ‖σ_t - σ_s‖², μ, σ = mean and deviation of each channel over its "
        "places, σ = sqrt(var + eps); norms over channels, mean over the batch"
    )
    source = "Lv, Yang, Li 2024, NeurIPS, arXiv 2412.08139, §3.2"

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("last_stage",),
        ratio: NotNegative = 4.0,
        eps: Positive = 1e-5,
    ) -> None:
        super().__init__(taps)
        self.ratio = ratio
        self.eps = eps
        self.adapters = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        self.adapters = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(s.shape[1], t.shape[1], 1, bias=False),
                AdapterNorm(t.shape[1]),
                nn.ReLU(),
            )
            for s, t in map_pairs(self, student, teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the maps `[B, C, H, W]` of each tap pair."""
        losses = [
            self._distance(adapter(s), t)
            for adapter, (s, t) in zip(
                self.adapters, map_pairs(self, student, teacher), strict=True
            )
        ]
        return sum(losses[1:], losses[0])

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        (mean_s, deviation_s), (mean_t, deviation_t) = (
            channel_gaussians(features, self.eps) for features in (student, teacher)
        )
        means = (mean_s - mean_t).square().sum(dim=1)
        deviations = (deviation_s - deviation_t).square().sum(dim=1)
        return (self.ratio * means + deviations).mean()

    def symbol(self) -> str:
        return f"WKD-F({tap_names(self)})"


def channel_gaussians(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation `[B, C]` of each channel of `[B, C, H, W]` over its places."""
    values = features.flatten(2)
    mean = values.mean(dim=2, keepdim=True)
    variance = (values - mean).square().sum(dim=2) / max(values.shape[2] - 1, 1)
    return mean.squeeze(2), torch.sqrt(variance + eps)
