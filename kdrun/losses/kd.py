"""Soft targets: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"."""

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import Term, full_precision
from kdrun.types import Batch, Outputs


class SoftTargets(Term):
    """T² · KL(p_teacher^T ‖ p_student^T), summed over classes, averaged over the batch.

    p^T = softmax(logits / T). The factor T² keeps the gradient's size when T changes
    (arXiv 1503.02531 §2). weight: alpha.

    temperature: T, above 0.
    """

    id = "kd"
    full_name = "Soft targets"
    formula = "T² · KL(p_t ‖ p_s), p = softmax(z / T); sum over classes, mean over the batch"
    source = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531, §2"
    soft = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        return soft_target_loss(student.logits, teacher.logits, self.temperature)

    def symbol(self) -> str:
        t = self.temperature
        return f"{t * t:g}*KL(T={t:g})"


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of logits `[B, C]`, summed over classes, averaged over B."""
    log_p = F.log_softmax(full_precision(student) / temperature, dim=1)
    log_q = F.log_softmax(full_precision(teacher) / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
