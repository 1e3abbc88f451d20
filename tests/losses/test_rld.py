"""Refined logit distillation: the teacher's confidence, and the classes below the true one."""

import pytest
import torch
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    batch_of,
    divergence,
    random_logits,
    softmax,
)
from torch import Tensor

from kdrun.losses.dkd import decoupled_loss
from kdrun.losses.rld import RefinedLogits
from kdrun.types import Outputs


def reference(temperature: float, alpha: float, beta: float, own: float):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
            p, q = softmax(s, own), softmax(t, own)
            largest = max(q)
            total = total + alpha * own**2 * divergence([largest, 1 - largest], [p[y], 1 - p[y]])
            kept = [c for c in range(len(t)) if t[c] < t[y]]
            if kept:
                p = softmax(torch.stack([s[c] for c in kept]), temperature)
                q = softmax(torch.stack([t[c] for c in kept]), temperature)
                total = total + beta * temperature**2 * divergence(q, p)
        return total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [(4.0, 1.0, 8.0, 1.0), (2.0, 0.5, 3.0, 2.0)])
def test_equal_to_the_loop(shape: tuple[int, int], settings: tuple[float, ...]) -> None:
    assert_equals(RefinedLogits(*settings), reference(*settings), shape)


def test_where_the_teacher_is_right_the_masked_part_is_nckd_of_dkd() -> None:
    student, teacher, targets = random_logits((6, 10))
    teacher[torch.arange(6), targets] = teacher.amax(dim=1) + 1
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    found = RefinedLogits(temperature=4.0, alpha=0.0, beta=1.0)(*case)
    torch.testing.assert_close(found, decoupled_loss(student, teacher, targets, 4.0, (0.0, 1.0)))


def test_a_true_class_below_all_others_leaves_the_confidence_alone() -> None:
    student, teacher, targets = random_logits((4, 6))
    teacher[torch.arange(4), targets] = teacher.amin(dim=1) - 1
    case = Outputs(student.requires_grad_()), Outputs(teacher), batch_of(targets)
    loss = RefinedLogits(alpha=0.0, beta=1.0)(*case)
    assert float(loss) == 0.0
    (gradient,) = torch.autograd.grad(loss, student)
    assert not gradient.any()


def test_classes_tied_with_the_true_one_are_masked() -> None:
    teacher = torch.tensor([[1.0, 1.0, 0.0, -1.0]]).double()
    student, targets = torch.tensor([[0.0, 9.0, 1.0, 2.0]]).double(), torch.tensor([0])
    loss = RefinedLogits(temperature=1.0, alpha=0.0, beta=1.0)
    value = loss(Outputs(student), Outputs(teacher), batch_of(targets))
    student[0, 1] = -9.0
    assert torch.equal(value, loss(Outputs(student), Outputs(teacher), batch_of(targets)))


def test_frozen_values() -> None:
    assert_golden(RefinedLogits(), 26.14745)
    assert_golden(RefinedLogits(standardise=True), 5.076149)
