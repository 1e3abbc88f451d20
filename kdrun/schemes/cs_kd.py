"""Class-wise self-distillation (CS-KD): images of one class should get similar predictions.

Source: Yun, Park, Lee and Shin 2020, arXiv 2003.13964.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch

from kdrun.schemes.base import StudentScheme
from kdrun.schemes.context import SchemeContext, require_logits
from kdrun.types import Batch, Outputs


def class_wise(given: SchemeContext) -> "ClassWise":
    """The student's output for another image of the same class is the teacher.

    With `loss=kd`: ce · CE(x) + λ · T² · KL(p^T(x') ‖ p^T(x)), where p(x') is a constant (section
    2.2, eqs. 1 and 2) and λ the weight of the term. x' is drawn anew in every epoch from the other
    training images of x's class, as `Batch.partner`; the only image of a class is its own partner.
    x' is seen in training mode, so that the running statistics of batch normalisation follow both
    images. Other losses on logits can take the place of the KL.
    Raises ConfigError for losses that read more than logits.
    """
    require_logits(given.objective, "cs_kd", "two images are compared, whose features may differ")
    student = given.student.extractor()
    output = given.dry(student)
    given.build_losses(given.objective, (given.student, given.student), (output, output), "cs_kd")
    return ClassWise(student, given.objective, given.compiled)


class ClassWise(StudentScheme):
    """A student that learns from its own outputs for other images of the class."""

    reads_partner: ClassVar[bool] = True

    def forward_networks(self, batch: Batch) -> tuple[Outputs, Sequence[Outputs]]:
        """(outputs for the images, outputs for their partners)."""
        assert batch.partner is not None
        student = self._run_student[0](batch.images)
        with torch.no_grad():
            partner = self._run_student[0](batch.partner)
        return student, [partner]

    def describe(self) -> str:
        """The objective and the teacher."""
        return f"{self.objective.describe()}, to the answer for another image of the class"
