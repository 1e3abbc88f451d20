"""Logit regression: what soft targets become at high temperature."""

from torch import Tensor

from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.types import Batch, Outputs


class LogitRegression(DistillationLoss):
    """Half the squared difference of the logits, averaged over classes and batch.

    For T far above the logits and logits of zero mean, the gradient of T² · KL is
    (z_student - z_teacher) / C per logit (Hinton et al. 2015, arXiv 1503.02531 §2.1, eq. 4), which
    is the gradient of ‖z_student - z_teacher‖² / (2C). weight: alpha.

    zero_mean: take each image's mean logit away first, as the limit assumes.
    """

    id = "logits"
    full_name = "Logit regression"
    formula = "½ · (Δz - mean_c Δz)², Δz = z_s - z_t; mean over classes and batch"
    source = "Ba & Caruana 2014, arXiv 1312.6184; Hinton et al. 2015, arXiv 1503.02531, §2.1, eq. 4"
    soft = True

    def __init__(self, zero_mean: bool = True) -> None:
        super().__init__()
        self.zero_mean = zero_mean

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        difference = full_precision(student.logits) - full_precision(teacher.logits)
        if self.zero_mean:
            difference = difference - difference.mean(dim=1, keepdim=True)
        return 0.5 * difference.square().mean()

    def symbol(self) -> str:
        return "½‖Δz‖²/C"
