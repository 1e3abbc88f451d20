"""The part of soft targets that compares the probability of the label alone (TCKD)."""

from torch import Tensor

from kdrun.losses.base import full_precision
from kdrun.losses.label_pairs import mean_over_labels
from kdrun.losses.logit_parts import binary_logits, mean_divergence, standardise
from kdrun.types import Batch


def target_class_loss(
    student: Tensor, teacher: Tensor, batch: Batch, temperature: float, z_scores: bool = False
) -> Tensor:
    """T² · KL of (p_y, 1 - p_y) of logits `[B, C]`, averaged over B (arXiv 2203.08679, §3.1)."""
    z_student, z_teacher = full_precision(student), full_precision(teacher)
    if z_scores:
        z_student, z_teacher = standardise(z_student), standardise(z_teacher)

    def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
        pair = [binary_logits(z / temperature, targets) for z in (z_student, z_teacher)]
        return temperature**2 * mean_divergence(pair[0], pair[1], shares)

    return mean_over_labels(loss, batch)
