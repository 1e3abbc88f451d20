"""Refined logit distillation: Sun et al., ICCV 2025, arXiv 2408.07703."""

from torch import Tensor

from kdrun.losses.base import PER_LABEL, DistillationLoss, full_precision
from kdrun.losses.label_pairs import mean_over_labels
from kdrun.losses.logit_parts import (
    binary_logits,
    mean_divergence,
    standardise,
    target_logit,
)
from kdrun.ranges import NotNegative, Temperature
from kdrun.types import Batch, Outputs

MASKED = -1e9  # exp of it is 0, and unlike -inf it leaves a row without classes finite


class RefinedLogits(DistillationLoss):
    """alpha · SCD + beta · MCD of logits `[B, C]` and labels y, averaged over the batch.

    SCD (sample confidence) compares two pairs of probabilities at `alpha_temperature`: the
    teacher's (max_c p_t, rest) and the student's (p_s,y, rest), so that a wrong teacher transfers
    its confidence but not its class. MCD (masked correlation) is the KL divergence of
    the softmax at `temperature` over the classes whose teacher logit is below the true class's;
    tied classes are left out, and a sample without such a class adds 0. Each part is multiplied
    by its temperature squared. Where the teacher is right, MCD is the NCKD of `dkd`. weight: 1
    with 1 · CE, reached linearly over 20 epochs; alpha 1, beta 8 (the published code).

    temperature: of MCD, above 0. alpha, beta: weights of the parts.
    alpha_temperature: of SCD, above 0. standardise: compare z-scores (as in `logit_std`).
    """

    id = "rld"
    full_name = "Refined logit distillation"
    formula = (
        "alpha · T_a² · KL((max p_t, rest) ‖ (p_s,y, rest)) + beta · T² · KL(q_t ‖ q_s), "
        "q = softmax(z / T) over the classes with z_t,c < z_t,y; mean over the batch"
    )
    source = "Sun et al. 2025, ICCV, arXiv 2408.07703"
    reads_labels = True
    label_pairs = PER_LABEL

    def __init__(
        self,
        temperature: Temperature = 4.0,
        alpha: NotNegative = 1.0,
        beta: NotNegative = 8.0,
        alpha_temperature: Temperature = 1.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.alpha_temperature = alpha_temperature
        self.standardise = standardise

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]` and labels `[B]`."""
        z_student, z_teacher = full_precision(student.logits), full_precision(teacher.logits)
        if self.standardise:
            z_student, z_teacher = standardise(z_student), standardise(z_teacher)

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            confidence = mean_divergence(
                binary_logits(z_student / self.alpha_temperature, targets),
                binary_logits(z_teacher / self.alpha_temperature, z_teacher.argmax(dim=1)),
                shares,
            )
            masked = z_teacher >= target_logit(z_teacher, targets)
            correlation = mean_divergence(
                (z_student / self.temperature).masked_fill(masked, MASKED),
                (z_teacher / self.temperature).masked_fill(masked, MASKED),
                shares,
            )
            return (
                self.alpha * self.alpha_temperature**2 * confidence
                + self.beta * self.temperature**2 * correlation
            )

        return mean_over_labels(loss, batch)

    def symbol(self) -> str:
        return f"RLD(T={self.temperature:g}, alpha={self.alpha:g}, beta={self.beta:g})"
