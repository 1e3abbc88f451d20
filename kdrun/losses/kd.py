"""Soft targets: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"."""

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.losses.logit_parts import standardise
from kdrun.ranges import Temperature
from kdrun.types import Batch, Outputs


class SoftTargets(DistillationLoss):
    """T² · KL(p_teacher^T ‖ p_student^T), summed over classes, averaged over the batch.

    p^T = softmax(logits / T). The factor T² keeps the gradient's size when T changes
    (arXiv 1503.02531 §2). weight: alpha.

    temperature: T, above 0.
    standardise: compare z-scores of the logits instead (as in `logit_std`).
    """

    id = "kd"
    full_name = "Soft targets"
    formula = "T² · KL(p_t ‖ p_s), p = softmax(z / T); sum over classes, mean over the batch"
    source = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531, §2"
    soft = True

    def __init__(self, temperature: Temperature = 4.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardise = standardise

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        return soft_target_loss(
            student.logits, teacher.logits, self.temperature, z_scores=self.standardise
        )

    def target_temperature(self) -> float | None:
        return None if self.standardise else self.temperature

    def symbol(self) -> str:
        return kl_symbol(self.temperature, self.standardise)


def soft_target_loss(
    student: Tensor, teacher: Tensor, temperature: float | Tensor, z_scores: bool = False
) -> Tensor:
    """T² · KL(teacher ‖ student) of logits `[B, C]`, summed over classes, averaged over B.

    temperature: a number or a scalar tensor. z_scores: standardise both sets of logits first.
    """
    z_student, z_teacher = full_precision(student), full_precision(teacher)
    if z_scores:
        z_student, z_teacher = standardise(z_student), standardise(z_teacher)
    log_p = F.log_softmax(z_student / temperature, dim=1)
    log_q = F.log_softmax(z_teacher / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def kl_symbol(temperature: float, z_scores: bool) -> str:
    """`16*KL(T=4)`, or `16*KL(T=4, z-scores)`."""
    note = ", z-scores" if z_scores else ""
    return f"{temperature**2:g}*KL(T={temperature:g}{note})"
