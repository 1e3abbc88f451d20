"""Hard labels."""

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.ranges import Share
from kdrun.types import Batch, Outputs


class CrossEntropy(DistillationLoss):
    """Cross-entropy with the hard labels, averaged over the batch.

    As a criterion: `loss(student_logits, None, targets)`.

    `loss=ce` trains the student on labels alone; with other losses it changes nothing, because the
    objective always holds CE with its own weight (`ce`, or `1 - alpha`).
    """

    id = "ce"
    full_name = "Cross-entropy with hard labels"
    formula = "-log softmax(z_s)[y]; mean over the batch"
    source = "the labels; no distillation"
    reads_labels = True

    def __init__(self, label_smoothing: Share = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """CE of logits `[B, C]` and labels `[B]`; the teacher is not looked at."""
        return F.cross_entropy(
            full_precision(student.logits), batch.targets, label_smoothing=self.label_smoothing
        )

    def symbol(self) -> str:
        return "CE"
