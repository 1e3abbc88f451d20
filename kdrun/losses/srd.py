"""The projector's role in distillation: Miles & Mikolajczyk, AAAI 2024, arXiv 2303.11098."""

from typing import Annotated

import torch
from torch import Tensor, nn

from kdrun.losses.adapters import DEFAULT, AdapterNorm, linear_adapter, require_adapter
from kdrun.losses.base import DistillationLoss, LossContext, full_precision
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.logit_parts import mean_divergence
from kdrun.ranges import NotNegative, Range, Temperature
from kdrun.types import Batch, Outputs

SMALLEST_SUM = 1e-12
# Below 1 a difference of 0 has no finite gradient; far above 16 the powers overflow float32.
Exponent = Annotated[float, Range(low=1, high=16)]


class SimpleRecipe(DistillationLoss):
    """feature · log Σ |BN(P e_s) - BN(e_t)|^exponent + KL(p_t ‖ p_s) of embeddings and logits.

    P is a linear layer `[D_s] → [D_t]` and BN batch normalisation without scale and shift, on both
    sides. The logarithm is of the sum over the batch and all dimensions, not a sum of logarithms.
    KL at T without T², averaged over the batch. weight: 1 with 1 · CE; feature 2, exponent 4.

    feature: weight of the embeddings' part. exponent: 1 to 16. temperature: T, above 0.
    adapter: `orthogonal` keeps P orthogonal, without bias.
    As a criterion: `srd(e_s, e_t, student_logits=z_s, teacher_logits=z_t)`; without the logits it
    is the embeddings' part alone.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "srd"
    full_name = "Simple recipe distillation"
    formula = (
        "feature · log Σ |BN(P e_s) - BN(e_t)|^exponent + KL(p_t ‖ p_s), sum over batch and "
        "dimensions, p = softmax(z / T), KL: mean over the batch"
    )
    source = "Miles & Mikolajczyk 2024, AAAI, arXiv 2303.11098"
    compares_samples = True
    reads_embedding = True

    def __init__(
        self,
        feature: NotNegative = 2.0,
        exponent: Exponent = 4.0,
        temperature: Temperature = 1.0,
        adapter: str = DEFAULT,
    ) -> None:
        super().__init__()
        require_adapter(self.id, adapter)
        self.adapter = adapter
        self.feature = feature
        self.exponent = exponent
        self.temperature = temperature
        self.projection: nn.Module = nn.Identity()
        self.norms = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        embeddings = embedding_pair(student, teacher)
        width = embeddings[1].shape[1]
        self.projection = linear_adapter(embeddings[0].shape[1], width, self.adapter)
        self.norms = nn.ModuleList(AdapterNorm(width, affine=False) for _ in range(2))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the embeddings `[B, D_s]`, `[B, D_t]` and two sets of logits `[B, C]`."""
        e_s, e_t = embedding_pair(student, teacher)
        norm_student, norm_teacher = self.norms
        difference = norm_student(_as_maps(self.projection(e_s))) - norm_teacher(_as_maps(e_t))
        total = difference.abs().pow(self.exponent).sum()
        soft = mean_divergence(
            full_precision(student.logits) / self.temperature,
            full_precision(teacher.logits) / self.temperature,
        )
        return self.feature * torch.log(total + SMALLEST_SUM) + soft

    def symbol(self) -> str:
        return f"SRD(exponent={self.exponent:g})"


def _as_maps(rows: Tensor) -> Tensor:
    """Rows `[B, D]` as maps `[B, D, 1, 1]` for `AdapterNorm`."""
    return rows[:, :, None, None]
