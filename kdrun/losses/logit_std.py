"""Logit standardisation: Sun et al., CVPR 2024, arXiv 2403.01427."""

from torch import Tensor

from kdrun.losses.base import DistillationLoss
from kdrun.losses.kd import kl_symbol, soft_target_loss
from kdrun.ranges import Temperature
from kdrun.types import Batch, Outputs


class LogitStandardisation(DistillationLoss):
    """T² · KL(softmax(z'_teacher / T) ‖ softmax(z'_student / T)) of z-scores z', mean over B.

    z' = (z - mean_c z) / std_c z per image, with the unbiased deviation: the student need not
    match the mean and scale of the teacher's logits, only their shape. weight: 9 with
    0.1 · CE on the plain logits, both from the published recipe, hence `ce_weight`. Two classes
    have z-scores ±1/√2 whatever the logits are, so that only their order is left to learn.

    temperature: T, above 0; the published base temperature is 2.
    """

    id = "logit_std"
    full_name = "Logit standardisation"
    formula = (
        "T² · KL(softmax(z'_t / T) ‖ softmax(z'_s / T)), z' = (z - mean_c z) / std_c z; "
        "sum over classes, mean over the batch"
    )
    source = "Sun, Ren, Li, Wang, Cao 2024, CVPR, arXiv 2403.01427"
    ce_weight = 0.1

    def __init__(self, temperature: Temperature = 2.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        return soft_target_loss(student.logits, teacher.logits, self.temperature, z_scores=True)

    def symbol(self) -> str:
        return kl_symbol(self.temperature, z_scores=True)
