"""Soft distillation of DeiT: Touvron et al., ICML 2021, arXiv 2012.12877."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from kdrun.losses.base import require_variant
from kdrun.losses.kd import soft_target_loss
from kdrun.losses.tokens import TokenLoss
from kdrun.ranges import Temperature
from kdrun.types import Batch, Outputs


class DeitSoft(TokenLoss):
    """T² · KL(p_teacher^T ‖ p_student^T) of logits `[B, C]`, as DeiT reduces it.

    paper: summed over classes, averaged over the batch (eq. 2), which is `kd`. code: averaged over
    batch and classes, C times smaller, as in the authors' code. weight: 0.1 with T 3, the paper's
    λ and τ (§5.2, "usual" distillation); it is alpha, and 1 - alpha is left to CE.

    A student with distillation tokens is taught through their heads: teacher i through token i, or
    all teachers through the only one (§4); CE then reads the class head.

    temperature: T, above 0. variant: see `variants`.
    """

    id = "deit_soft"
    full_name = "DeiT soft distillation"
    formula = (
        "T² · KL(p_t ‖ p_s), p = softmax(z / T); mean over batch and classes (code), or sum over "
        "classes and mean over the batch (paper)"
    )
    source = "Touvron, Cord, Douze, Massa, Sablayrolles, Jégou 2021, ICML, arXiv 2012.12877, eq. 2"
    variants: ClassVar[Mapping[str, str]] = {
        "code": "divided by the number of classes as well: the code behind the published figures",
        "paper": "summed over classes, as equation 2 reads",
    }

    def __init__(self, temperature: Temperature = 3.0, variant: str = "code") -> None:
        super().__init__()
        require_variant(type(self), variant)
        self.temperature = temperature
        self.variant = variant

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        taught = self.taught(student)
        loss = soft_target_loss(taught, teacher.logits, self.temperature)
        return loss / taught.shape[1] if self.variant == "code" else loss

    def target_temperature(self) -> float | None:
        return self.temperature

    def symbol(self) -> str:
        t = self.temperature
        return f"{t * t:g}*KL(T={t:g})" + ("/C" if self.variant == "code" else "")
