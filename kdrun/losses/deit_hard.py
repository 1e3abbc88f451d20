"""Hard-label distillation of DeiT: Touvron et al., ICML 2021, arXiv 2012.12877."""

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.tokens import TokenLoss
from kdrun.ranges import Share
from kdrun.types import Batch, Outputs


class DeitHard(TokenLoss):
    """Cross-entropy of the student's logits `[B, C]` with the teacher's decision, mean over B.

    The label is argmax_c of the teacher's logits (eq. 3). Paper and code agree; both may smooth
    the label. weight: 0.5, which leaves 0.5 to CE with the true labels; it is alpha.

    A student with distillation tokens is taught through their heads: teacher i through token i, or
    all teachers through the only one (§4); CE then reads the class head.

    label_smoothing: share of the label spread evenly over all classes.
    """

    id = "deit_hard"
    full_name = "DeiT hard-label distillation"
    formula = "-log softmax(z_s)[argmax z_t]; mean over the batch"
    source = "Touvron, Cord, Douze, Massa, Sablayrolles, Jégou 2021, ICML, arXiv 2012.12877, eq. 3"

    def __init__(self, label_smoothing: Share = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`."""
        decision = teacher.logits.argmax(dim=1)
        return F.cross_entropy(self.taught(student), decision, label_smoothing=self.label_smoothing)

    def target_temperature(self) -> float | None:
        return 1.0  # the class of the largest mean probability

    def symbol(self) -> str:
        return "CE(teacher's class)"
