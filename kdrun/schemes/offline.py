"""Frozen teachers, one student: the classic scheme (Hinton et al. 2015, arXiv 1503.02531)."""

from collections.abc import Sequence
from typing import Any

from kdrun.losses.objective import Objective
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.base import StudentScheme, freeze, teacher_forward
from kdrun.types import Batch, Outputs


class Offline(StudentScheme):
    """The student learns from frozen teachers."""

    def __init__(
        self,
        student: FeatureExtractor,
        teachers: Sequence[FeatureExtractor],
        objective: Objective,
        compiled: bool = False,
    ) -> None:
        super().__init__(student, objective, compiled)
        for teacher in teachers:
            freeze(teacher)
        # prepared by the caller, which also decides whether they are compiled;
        # a tuple is not registered: teachers are in no state dict and `train()` does not reach them
        self._teachers = tuple(teachers)

    @property
    def frozen_teachers(self) -> Sequence[Any]:
        """The prepared teachers."""
        return self._teachers

    def teacher_outputs(self, batch: Batch) -> Sequence[Outputs]:
        """Each teacher's outputs for the batch, without a graph."""
        images = batch.for_teacher
        return [teacher_forward(teacher, images, batch.keys) for teacher in self._teachers]
