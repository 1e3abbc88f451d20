"""Cross-view consistency: Zhang et al., ACM MM 2024, arXiv 2412.16493."""

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss, full_precision
from kdrun.losses.label_pairs import label_cross_entropy
from kdrun.losses.logit_parts import divergences
from kdrun.ranges import NotNegative, Share, Temperature
from kdrun.types import Batch, Outputs


class CrossViewConsistency(DistillationLoss):
    """KL within and across a weak and a strong view, for samples the teacher is confident about.

    within · mean_n m_w · (KL(weak) + KL(strong)) + across · mean_n m_s · (KL(teacher weak ‖ student
    strong) + KL(teacher strong ‖ student weak)) + strong_ce · CE(strong), KL times T². m_w and m_s
    are 1 where the teacher's largest probability on the weak (strong) view reaches its threshold,
    else 0; the mean is over the whole batch. The strong view is that of `augment.strong`.
    weight: 1 with 1 · CE of the weak view. Only a copy of the authors' code could be read
    (DeepKD's repository).

    temperature: T, above 0. within, across: weights of the parts. weak_threshold,
    strong_threshold: smallest confidence, within 0 and 1. strong_ce: weight of CE on the strong
    view.
    """

    id = "crld"
    full_name = "Cross-view consistency regularisation"
    formula = (
        "within · m_w · T² · (KL(w, w) + KL(s, s)) + across · m_s · T² · (KL(w, s) + KL(s, w)) + "
        "strong_ce · CE(s), KL(a, b) = KL(p_t of view a ‖ p_s of view b); mean over the batch"
    )
    source = "Zhang et al. 2024, ACM MM, arXiv 2412.16493; settings from DeepKD's copy of the code"
    reads_strong_view = True
    label_pairs = "the strong view's CE is the λ-weighted mean of those with either label"

    def __init__(
        self,
        temperature: Temperature = 4.0,
        within: NotNegative = 2.0,
        across: NotNegative = 0.5,
        weak_threshold: Share = 0.9,
        strong_threshold: Share = 0.2,
        strong_ce: NotNegative = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.within = within
        self.across = across
        self.weak_threshold = weak_threshold
        self.strong_threshold = strong_threshold
        self.strong_ce = strong_ce
        self.reads_labels = strong_ce != 0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the logits `[B, C]` of both views and labels `[B]`."""
        assert student.strong is not None
        assert teacher.strong is not None
        weak, strong = full_precision(student.logits), full_precision(student.strong.logits)
        teacher_weak = full_precision(teacher.logits)
        teacher_strong = full_precision(teacher.strong.logits)
        sure_weak = confident(teacher_weak, self.weak_threshold)
        sure_strong = confident(teacher_strong, self.strong_threshold)
        within = self._divergence(weak, teacher_weak) + self._divergence(strong, teacher_strong)
        across = self._divergence(strong, teacher_weak) + self._divergence(weak, teacher_strong)
        loss = self.within * (within * sure_weak).mean()
        loss = loss + self.across * (across * sure_strong).mean()
        if self.reads_labels:
            loss = loss + self.strong_ce * label_cross_entropy(strong, batch)
        return loss

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """T² · KL per sample, `[B]`."""
        scaled = student / self.temperature, teacher / self.temperature
        return self.temperature**2 * divergences(*scaled)

    def symbol(self) -> str:
        return f"CRLD(T={self.temperature:g})"


def confident(logits: Tensor, threshold: float) -> Tensor:
    """`[B]`: 1 where the largest probability of logits `[B, C]` reaches the threshold, else 0."""
    return (F.softmax(logits, dim=1).amax(dim=1) >= threshold).to(logits.dtype)
