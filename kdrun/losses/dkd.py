"""Decoupled knowledge distillation: Zhao et al., CVPR 2022, arXiv 2203.08679."""

from collections.abc import Sequence

from torch import Tensor

from kdrun.losses.base import full_precision
from kdrun.losses.embeddings import Classifier
from kdrun.losses.logit_parts import binary_logits, mean_divergence, other_logits, standardise
from kdrun.losses.regions import RegionalLoss
from kdrun.losses.target_class import target_class_loss
from kdrun.ranges import NotNegative, Pixels, Temperature
from kdrun.types import Batch, Outputs


class DecoupledDistillation(RegionalLoss):
    """alpha · TCKD + beta · NCKD of logits `[B, C]`, both times T², averaged over the batch.

    TCKD: KL between the pairs (p_y, 1 - p_y) of the label y; NCKD: KL between the softmax over the
    other classes alone. With two classes NCKD is zero: one class is left. weight: 1
    with 1 · CE, reached linearly over 20 epochs (`warmup_epochs`, from the published code; not
    in the equation). The published beta is 8 for ResNet-32x4 → ResNet-8x4, 2 to 8 elsewhere.

    temperature: T, above 0. alpha, beta: weights of the two parts.
    standardise: compare z-scores of the logits instead (as in `logit_std`).
    regions: [1,2,4] adds the logits of 2 × 2 and 4 × 4 regions of the last map (SDD, arXiv
    2403.13512): the mean over all regions, twice each that disagrees with the whole image
    on whether the teacher is right. None or [1]: the logits alone.
    student_classifier, teacher_classifier: with regions, instead of those in the networks.
    """

    id = "dkd"
    full_name = "Decoupled knowledge distillation"
    formula = (
        "T² · (alpha · KL(b_t ‖ b_s) + beta · KL(q_t ‖ q_s)), b = (p_y, 1 - p_y), "
        "q = softmax over the classes other than y; mean over the batch"
    )
    source = "Zhao, Cui, Song, Qiu, Liang 2022, CVPR, arXiv 2203.08679"
    reads_labels = True

    def __init__(
        self,
        temperature: Temperature = 4.0,
        alpha: NotNegative = 1.0,
        beta: NotNegative = 8.0,
        standardise: bool = False,
        regions: Sequence[Pixels] | None = None,
        student_classifier: Classifier | None = None,
        teacher_classifier: Classifier | None = None,
    ) -> None:
        super().__init__(regions, student_classifier, teacher_classifier)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.standardise = standardise

    def label_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        return decoupled_loss(
            student,
            teacher,
            targets,
            self.temperature,
            (self.alpha, self.beta),
            z_scores=self.standardise,
            shares=weights,
        )

    def target_part(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor | None:
        """alpha · TCKD; the rest is beta · NCKD."""
        if self.regional:
            return None
        temperature, z_scores = self.temperature, self.standardise
        return self.alpha * target_class_loss(
            student.logits, teacher.logits, batch, temperature, z_scores
        )

    def target_temperature(self) -> float | None:
        return None if self.standardise or self.regional else self.temperature

    def symbol(self) -> str:
        more = (", z-scores" if self.standardise else "") + self.regions_symbol()
        return f"DKD(T={self.temperature:g}, alpha={self.alpha:g}, beta={self.beta:g}{more})"


def decoupled_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    temperature: float | Tensor,
    weights: tuple[float, float],
    z_scores: bool = False,
    shares: Tensor | None = None,
) -> Tensor:
    """T² · (weights[0] · TCKD + weights[1] · NCKD) of logits `[B, C]`, averaged over B.

    temperature: a number or a scalar tensor. z_scores: standardise both sets of logits first.
    shares: `[B]`, weights of the images in the mean.
    """
    z_student, z_teacher = full_precision(student), full_precision(teacher)
    if z_scores:
        z_student, z_teacher = standardise(z_student), standardise(z_teacher)
    z_student, z_teacher = z_student / temperature, z_teacher / temperature
    tckd, nckd = (
        mean_divergence(part(z_student, targets), part(z_teacher, targets), shares)
        for part in (binary_logits, other_logits)
    )
    return temperature**2 * (weights[0] * tckd + weights[1] * nckd)
