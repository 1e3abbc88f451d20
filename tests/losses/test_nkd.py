"""Normalised distillation: the target's cross-entropy and that of the renormalised rest."""

import pytest
import torch
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    batch_of,
    gradient,
    random_logits,
    softmax,
)
from torch import Tensor

from kdrun.losses.nkd import NormalisedDistillation
from kdrun.types import Outputs


def reference(temperature: float, gamma: float):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
            own = -softmax(t)[y] * softmax(s)[y].log()
            p, q = softmax(s, temperature), softmax(t, temperature)
            rest = [c for c in range(len(s)) if c != y]
            sum_p, sum_q = sum(p[c] for c in rest), sum(q[c] for c in rest)
            others = -sum((q[c] / sum_q) * (p[c] / sum_p).log() for c in rest)
            total = total + own + gamma * temperature**2 * others
        return total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [(1.0, 1.5), (2.0, 0.7)])
def test_it_equals_the_sum_written_out(
    shape: tuple[int, int], settings: tuple[float, float]
) -> None:
    assert_equals(NormalisedDistillation(*settings), reference(*settings), shape)


def test_two_classes_leave_the_targets_part() -> None:
    student, teacher, targets = random_logits((5, 2))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    one = NormalisedDistillation(gamma=0.0)(*case)
    assert torch.equal(one, NormalisedDistillation(gamma=50.0)(*case))


def test_a_student_that_equals_its_teacher_is_at_rest_among_the_other_classes() -> None:
    """The cross-entropy of the rest is not zero there, but its gradient is."""
    _, teacher, targets = random_logits((5, 6))
    student = teacher.clone().requires_grad_()
    batch = batch_of(targets)
    whole = NormalisedDistillation()(Outputs(student), Outputs(teacher), batch)
    own = NormalisedDistillation(gamma=0.0)(Outputs(student), Outputs(teacher), batch)
    found = gradient(whole - own, student)
    torch.testing.assert_close(found, torch.zeros_like(found))
    assert float((whole - own).detach()) > 0.1


def test_frozen_numbers() -> None:
    assert_golden(NormalisedDistillation(), 5.833096)
    assert_golden(NormalisedDistillation(4.0, 1.0), 25.87153)
