"""Soft targets: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import full_precision
from kdrun.losses.embeddings import Classifier
from kdrun.losses.logit_parts import mean_divergence, standardise
from kdrun.losses.regions import RegionalLoss
from kdrun.losses.target_class import target_class_loss
from kdrun.ranges import Pixels, Temperature
from kdrun.types import Batch, Outputs


class SoftTargets(RegionalLoss):
    """T² · KL(p_teacher^T ‖ p_student^T), summed over classes, averaged over the batch.

    p^T = softmax(logits / T). The factor T² keeps the gradient's size when T changes
    (arXiv 1503.02531 §2). weight: alpha.

    temperature: T, above 0.
    standardise: compare z-scores of the logits instead (as in `logit_std`).
    regions: [1,2,4] adds the logits of 2 × 2 and 4 × 4 regions of the last map (SDD, arXiv
    2403.13512), and reads labels: the mean over all regions, twice each that disagrees with the
    whole image on whether the teacher is right. None or [1]: the logits alone.
    student_classifier, teacher_classifier: with regions, instead of those in the networks.
    """

    id = "kd"
    full_name = "Soft targets"
    formula = "T² · KL(p_t ‖ p_s), p = softmax(z / T); sum over classes, mean over the batch"
    source = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531, §2"
    soft = True

    def __init__(
        self,
        temperature: Temperature = 4.0,
        standardise: bool = False,
        regions: Sequence[Pixels] | None = None,
        student_classifier: Classifier | None = None,
        teacher_classifier: Classifier | None = None,
    ) -> None:
        super().__init__(regions, student_classifier, teacher_classifier)
        self.temperature = temperature
        self.standardise = standardise

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`; with regions, maps and labels too."""
        if self.regional:
            return super().forward(student, teacher, batch)
        return soft_target_loss(
            student.logits, teacher.logits, self.temperature, z_scores=self.standardise
        )

    def label_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        z_student, z_teacher = full_precision(student), full_precision(teacher)
        if self.standardise:
            z_student, z_teacher = standardise(z_student), standardise(z_teacher)
        scaled = z_student / self.temperature, z_teacher / self.temperature
        return self.temperature**2 * mean_divergence(*scaled, weights)

    def target_part(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor | None:
        """T² · KL of (p_y, 1 - p_y); the rest is T² · (1 - p_t,y) · KL of the other classes."""
        if self.regional:
            return None
        temperature, z_scores = self.temperature, self.standardise
        return target_class_loss(student.logits, teacher.logits, batch, temperature, z_scores)

    def target_temperature(self) -> float | None:
        return None if self.standardise or self.regional else self.temperature

    def symbol(self) -> str:
        return kl_symbol(self.temperature, self.standardise, self.regions_symbol())


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


def kl_symbol(temperature: float, z_scores: bool, more: str = "") -> str:
    """`16*KL(T=4)`, or `16*KL(T=4, z-scores)`. more: further notes, each with a comma before."""
    note = (", z-scores" if z_scores else "") + more
    return f"{temperature**2:g}*KL(T={temperature:g}{note})"
