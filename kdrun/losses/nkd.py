"""Normalised knowledge distillation: Yang et al., ICCV 2023, arXiv 2303.13005."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import full_precision
from kdrun.losses.embeddings import Classifier
from kdrun.losses.label_pairs import weighted_mean
from kdrun.losses.logit_parts import other_logits, target_cross_entropy
from kdrun.losses.regions import RegionalLoss
from kdrun.ranges import NotNegative, Pixels, Temperature


class NormalisedDistillation(RegionalLoss):
    """-p_t,y · log p_s,y - gamma · T² · Σ q_t · log q_s of logits `[B, C]`, averaged over B.

    p is the softmax at temperature 1 and y the label; q is the softmax at T over the other classes
    alone, so that both sides sum to one. Cross-entropies, not divergences: a student equal
    to its teacher leaves their entropy. With two classes the second part is zero. weight: 1 with
    1 · CE, gamma 1.5 and T 1, the authors' values.

    temperature: T of the second part, above 0. gamma: its weight.
    regions: [1,2,4] adds the logits of 2 × 2 and 4 × 4 regions of the last map (SDD, arXiv
    2403.13512): the mean over all regions, twice each that disagrees with the whole image
    on whether the teacher is right. None or [1]: the logits alone.
    The authors' code keeps the label among the other classes of a region by mistake.
    student_classifier, teacher_classifier: with regions, instead of those in the networks.
    """

    id = "nkd"
    full_name = "Normalised knowledge distillation"
    formula = (
        "-p_t,y · log p_s,y - gamma · T² · Σ_{c≠y} q_t,c · log q_s,c, "
        "q = softmax(z / T) over the classes other than y; mean over the batch"
    )
    source = "Yang, Zeng, Li, Zhang, Yuan, Li 2023, ICCV, arXiv 2303.13005"
    reads_labels = True

    def __init__(
        self,
        temperature: Temperature = 1.0,
        gamma: NotNegative = 1.5,
        regions: Sequence[Pixels] | None = None,
        student_classifier: Classifier | None = None,
        teacher_classifier: Classifier | None = None,
    ) -> None:
        super().__init__(regions, student_classifier, teacher_classifier)
        self.temperature = temperature
        self.gamma = gamma

    def label_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        z_student, z_teacher = full_precision(student), full_precision(teacher)
        target = target_cross_entropy(z_student, z_teacher, targets)
        log_q = F.log_softmax(other_logits(z_student, targets) / self.temperature, dim=1)
        q = F.softmax(other_logits(z_teacher, targets) / self.temperature, dim=1)
        others = weighted_mean(-(q * log_q).sum(dim=1), weights)
        return weighted_mean(target, weights) + self.gamma * self.temperature**2 * others

    def symbol(self) -> str:
        return f"NKD(T={self.temperature:g}, gamma={self.gamma:g}{self.regions_symbol()})"
