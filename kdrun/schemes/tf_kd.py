"""Teacher-free distillation (Tf-KD): a virtual teacher, or the student itself.

Source: Yuan, Tay, Li, Wang and Feng 2020, arXiv 1909.11723.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.objective import Objective
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.context import SchemeContext, require_logits, require_losses, require_variant
from kdrun.schemes.offline import Offline
from kdrun.types import Batch, Outputs

CORRECT = 0.99  # the paper's probability of the right class

VARIANTS = {
    "virtual": "a hand-designed teacher: always right, uniform over all other classes",
    "self_training": "the same network, trained on the labels first (the baseline)",
}


def teacher_free(
    given: SchemeContext,
    student: FeatureExtractor,
    teachers: Sequence[FeatureExtractor],
    objective: Objective,
    compiled: bool,
    variant: str = "virtual",
    correct: float | None = None,
) -> StudentScheme:
    """The objective with a teacher that knows nothing but the labels, or the student alone.

    virtual (section 5.2, eqs. 9 and 10): the teacher gives the right class the probability a and
    the others (1 - a) / (C - 1) each; as a teacher of logits it has the logarithms of these, so
    that with `loss=kd` the loss is (1-α) · CE + α · T² · KL(p_d^T ‖ p^T), p_d^T ∝ p_d^(1/T). The
    paper writes the KL without the factor T²; its program instead multiplies it by a constant and
    softens only the teacher. For mixed images it gives λ · p_d of the label + (1 - λ) · p_d of the
    second label. self_training (section 5.1): the student alone, as it is trained for
    comparison, is the frozen teacher of a new student, with any loss.

    variant: virtual | self_training. correct: a, from above 1/C to below 1; null is 0.99; only
    `virtual` reads it.
    """
    require_variant("tf_kd", variant, tuple(VARIANTS))
    if variant == "self_training":
        if correct is not None:
            raise ConfigError(
                "scheme.correct has no effect with variant=self_training: leave it out."
            )
        require_losses(objective, "tf_kd")
        return Offline(student, teachers, objective, compiled)
    require_logits(objective, "tf_kd", "the virtual teacher has nothing else")
    a = CORRECT if correct is None else correct
    if not 1 / given.num_classes < a < 1:
        raise ConfigError(
            f"scheme.correct={a:g} must be above 1/{given.num_classes}, so that the right class is "
            "the most likely one, and below 1, e.g. 0.99."
        )
    extractor = given.student.extractor()
    output = given.dry(extractor)
    given.build_losses(objective, (given.student, given.student), (output, output), "tf_kd")
    return VirtualTeacher(extractor, objective, a, compiled)


class VirtualTeacher(StudentScheme):
    """A student whose virtual teacher is always right, with a fixed confidence."""

    def __init__(
        self,
        student: FeatureExtractor,
        objective: Objective,
        correct: float,
        compiled: bool = False,
    ) -> None:
        super().__init__(student, objective, compiled)
        self.correct = correct

    def forward_networks(self, batch: Batch) -> tuple[Outputs, Sequence[Outputs]]:
        """(student's outputs, the virtual teacher's)."""
        student = self._run_student[0](batch.images)
        logits = self._teacher(batch, student.logits.shape[1])
        return student, [Outputs(logits.to(student.logits.dtype))]

    def _teacher(self, batch: Batch, num_classes: int) -> Tensor:
        """log p_d, `[B, C]`; of mixed images the logarithm of the λ-weighted mean of both p_d."""
        logits = virtual_logits(batch.targets, num_classes, self.correct)
        if batch.mixture is None:
            return logits
        share = batch.mixture.share[:, None]
        second = virtual_logits(batch.mixture.targets, num_classes, self.correct)
        return torch.logaddexp(share.log() + logits, (1.0 - share).log() + second)

    def describe(self) -> str:
        """The objective and the teacher."""
        return f"{self.objective.describe()}, to a virtual teacher with a={self.correct:g}"


def virtual_logits(targets: Tensor, num_classes: int, correct: float) -> Tensor:
    """log p_d for labels `[B]`: `[B, C]`, log a at the label and log (1-a)/(C-1) elsewhere."""
    others = math.log((1.0 - correct) / (num_classes - 1))
    logits = torch.full((len(targets), num_classes), others, device=targets.device)
    return logits.scatter(1, targets[:, None], math.log(correct))
