"""The α-β-divergence of soft targets: Wang et al., ICML 2025, arXiv 2505.04560."""

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.ranges import Range, Temperature
from kdrun.types import Batch, Outputs

Power = Annotated[float, Range(low=0, high=10)]


class AlphaBetaDivergence(DistillationLoss):
    """D(p ‖ q) of the teacher's p and the student's q, softmax(z / T), averaged over the batch.

    D = -1/(a·b) Σ_c [p^a · q^b - a/(a+b) · p^(a+b) - b/(a+b) · q^(a+b)] with its limits where a or
    b is 0. a = 1, b = 0 is KL(p ‖ q), the divergence of `kd`; a = 0, b = 1 is KL(q ‖ p); a = b = ½
    is four times the squared Hellinger distance. A larger a follows the teacher's largest
    probabilities, a larger b the student's. weight: 32 with 1 · CE, a 0.8, b 0.3, the authors'
    script for ResNet-56 → ResNet-20; there is no T², as in their code.

    Where a or b is 0, the authors' code divides by b (or a) instead of its square, so that the
    value jumps there; this one is continuous. Both agree for powers 0 and 1.

    teacher_power, student_power: a and b, at least 0. temperature: T, above 0.
    """

    id = "abkd"
    full_name = "Alpha-beta divergence"
    formula = (
        "-1/(a·b) Σ_c [p^a · q^b - a/(a+b) · p^(a+b) - b/(a+b) · q^(a+b)], p teacher's, q "
        "student's softmax(z / T); mean over the batch"
    )
    source = "Wang et al. 2025, ICML, arXiv 2505.04560; Cichocki, Cruces, Amari 2011, Entropy 13"

    def __init__(
        self,
        teacher_power: Power = 0.8,
        student_power: Power = 0.3,
        temperature: Temperature = 4.0,
    ) -> None:
        super().__init__()
        self.teacher_power = teacher_power
        self.student_power = student_power
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        log_q = F.log_softmax(full_precision(student.logits) / self.temperature, dim=1)
        log_p = F.log_softmax(full_precision(teacher.logits) / self.temperature, dim=1)
        return divergence(log_p, log_q, self.teacher_power, self.student_power).mean()

    def target_temperature(self) -> float | None:
        return self.temperature

    def symbol(self) -> str:
        return f"AB({self.teacher_power:g}, {self.student_power:g}; T={self.temperature:g})"


def divergence(log_p: Tensor, log_q: Tensor, a: float, b: float) -> Tensor:
    """The α-β-divergence per row, `[B]`, of logarithms of probabilities `[B, C]`; a, b ≥ 0."""
    if a == 0 and b == 0:
        return 0.5 * (log_p - log_q).square().sum(dim=1)
    if b == 0:
        return _with_one_power(log_p, log_q, a)
    if a == 0:
        return _with_one_power(log_q, log_p, b)
    both = a + b
    terms = (
        (a * log_p + b * log_q).exp()
        - a / both * (both * log_p).exp()
        - b / both * (both * log_q).exp()
    )
    return -terms.sum(dim=1) / (a * b)


def _with_one_power(log_p: Tensor, log_q: Tensor, a: float) -> Tensor:
    """1/a² Σ [p^a · log(p^a / q^a) - p^a + q^a]: the limit for b → 0."""
    p, q = (a * log_p).exp(), (a * log_q).exp()
    return (a * p * (log_p - log_q) - p + q).sum(dim=1) / a**2
