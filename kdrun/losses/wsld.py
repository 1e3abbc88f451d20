"""Weighted soft labels: Zhou et al., ICLR 2021, arXiv 2102.00650."""

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import PER_LABEL, DistillationLoss, full_precision
from kdrun.losses.label_pairs import mean_over_labels, weighted_mean
from kdrun.ranges import Temperature
from kdrun.types import Batch, Outputs


class WeightedSoftLabels(DistillationLoss):
    """T² · w · H(p_teacher^T, p_student^T) of logits `[B, C]`, averaged over the batch.

    H is the cross-entropy summed over classes; w = 1 - exp(-CE_student / CE_teacher) of each image
    uses both networks' cross-entropy with the label at temperature 1 and carries no
    gradient: images that the student finds easier than the teacher count less. weight: 2.5
    with 1 · CE, with T 2, the authors' values.

    temperature: T, above 0.
    """

    id = "wsld"
    full_name = "Weighted soft labels"
    formula = (
        "T² · (1 - exp(-CE_s / CE_t)) · H(softmax(z_t / T), softmax(z_s / T)); "
        "sum over classes, mean over the batch; no gradient through the first factor"
    )
    source = "Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang 2021, ICLR, arXiv 2102.00650"
    reads_labels = True
    label_pairs = PER_LABEL

    def __init__(self, temperature: Temperature = 2.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]` and labels `[B]`."""
        z_student, z_teacher = full_precision(student.logits), full_precision(teacher.logits)
        log_p = F.log_softmax(z_student / self.temperature, dim=1)
        soft = -(F.softmax(z_teacher / self.temperature, dim=1) * log_p).sum(dim=1)

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            ce_student = F.cross_entropy(z_student.detach(), targets, reduction="none")
            ce_teacher = F.cross_entropy(z_teacher.detach(), targets, reduction="none")
            counts = 1.0 - (-ce_student / (ce_teacher + 1e-7)).exp()
            return self.temperature**2 * weighted_mean(counts * soft, shares)

        return mean_over_labels(loss, batch)

    def symbol(self) -> str:
        return f"WSLD(T={self.temperature:g})"
