"""The labels: cross-entropy, or one binary cross-entropy per class."""

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from kdrun.config.schema import ScheduleConfig
from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.losses.label_pairs import label_cross_entropy, soft_labels
from kdrun.ranges import Choices, Share
from kdrun.types import Batch, Outputs

CE, BCE = "ce", "bce"


def label_loss(schedule: ScheduleConfig) -> "CrossEntropy":
    """The loss of the labels that a training recipe asks for."""
    return CrossEntropy(
        schedule.label_smoothing, schedule.ce_kind, schedule.ce_threshold, schedule.ce_sum
    )


class CrossEntropy(DistillationLoss):
    """Cross-entropy with the labels, averaged over the batch; of mixed images with both labels.

    As a criterion: `loss(student_logits, None, targets)`.

    `loss=ce` trains the student on labels alone; with other losses it changes nothing, because the
    objective always holds CE with its own weight (`ce`, or `1 - alpha`). For mixed images it is
    λ · CE(y) + (1 - λ) · CE(y'), which is CE with the soft label λ · y + (1 - λ) · y'.

    `ce.kind=bce` replaces softmax and CE by one sigmoid and binary cross-entropy per class, with
    the smoothed and mixed labels as targets (Wightman, Touvron & Jégou 2021, arXiv 2110.00476, and
    timm's `BinaryCrossEntropy`): averaged over batch and classes, which is about C times smaller
    than the sum that a loss such as kd takes over the classes. `ce.sum=true` sums over the classes
    instead. `ce.threshold=0.2` turns targets above it into 1 and all others into 0, so that both
    classes of a mixed image count as present.
    """

    id = "ce"
    full_name = "Cross-entropy with hard labels"
    formula = "-log softmax(z_s)[y]; mean over the batch"
    source = "the labels; no distillation"
    reads_labels = True
    label_pairs = "CE with the soft label λ · y + (1 - λ) · y'; the same label with `ce.kind=bce`"

    def __init__(
        self,
        label_smoothing: Share = 0.0,
        kind: Annotated[str, Choices((CE, BCE))] = CE,
        threshold: Share | None = None,
        sum_classes: bool = False,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.kind = kind
        self.threshold = threshold
        self.sum_classes = sum_classes

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from logits `[B, C]` and labels `[B]`; the teacher is not read."""
        logits = full_precision(student.logits)
        if self.kind == CE:
            return label_cross_entropy(logits, batch, self.label_smoothing)
        targets = soft_labels(batch, logits.shape[1], self.label_smoothing, logits.dtype)
        if self.threshold is not None:
            targets = targets.gt(self.threshold).to(logits.dtype)
        mean = F.binary_cross_entropy_with_logits(logits, targets)
        return mean * logits.shape[1] if self.sum_classes else mean

    def symbol(self) -> str:
        """`CE` or `BCE`, in the printed objective."""
        return self.kind.upper()
