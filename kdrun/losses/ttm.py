"""Transformed teacher matching: Zheng & Yang, ICLR 2024, arXiv 2402.11148."""

from torch import Tensor

from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.losses.logit_parts import divergences
from kdrun.ranges import Positive
from kdrun.types import Batch, Outputs


class TransformedTeacherMatching(DistillationLoss):
    """KL(q ‖ p_s), q ∝ p_t^gamma, of logits `[B, C]`: summed over classes, averaged over the batch.

    The power transform replaces the temperature on the teacher's side: gamma = 1/T gives the soft
    targets of `kd`. The student has no temperature and the loss no factor T². weight: 45 with
    gamma 0.1 with 1 · CE, the setting the authors publish for VGG-13 → VGG-8.

    gamma: exponent, above 0; below 1 it flattens the teacher's distribution.
    """

    id = "ttm"
    full_name = "Transformed teacher matching"
    formula = (
        "KL(q ‖ p_s), q = p_t^gamma / Σ_c p_t,c^gamma, p = softmax(z); "
        "sum over classes, mean over the batch"
    )
    source = "Zheng & Yang 2024, ICLR, arXiv 2402.11148"

    def __init__(self, gamma: Positive = 0.1) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        return matching_divergence(student.logits, teacher.logits, self.gamma).mean()

    def target_temperature(self) -> float | None:
        return 1.0 / self.gamma

    def symbol(self) -> str:
        return f"TTM(gamma={self.gamma:g})"


def matching_divergence(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """KL(q ‖ softmax(student)) per image, `[B]`, with q ∝ softmax(teacher)^gamma.

    student, teacher: logits `[B, C]`. The power is taken of log-probabilities: a float32 softmax
    has already lost the small ones.
    """
    return divergences(full_precision(student), gamma * full_precision(teacher))
