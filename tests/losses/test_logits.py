"""Logit regression: half the squared difference of logits."""

import pytest
import torch
from losses.logit_cases import SHAPES, assert_equals, assert_golden, gradient, random_logits
from torch import Tensor

from kdrun.losses.kd import soft_target_loss
from kdrun.losses.logits import LogitRegression
from kdrun.types import Batch, Outputs


def centred(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        gaps = [a - b for a, b in zip(s, t, strict=True)]
        mean = sum(gaps) / len(gaps)
        total = total + sum((gap - mean) ** 2 for gap in gaps)
    return 0.5 * total / student.numel()


def plain(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    return sum((a - b) ** 2 for a, b in zip(student.ravel(), teacher.ravel(), strict=True)) / (
        2 * student.numel()
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_sum_written_out(shape: tuple[int, int]) -> None:
    assert_equals(LogitRegression(), centred, shape)
    assert_equals(LogitRegression(zero_mean=False), plain, shape)


def test_frozen_numbers() -> None:
    assert_golden(LogitRegression(), 4.703775)
    assert_golden(LogitRegression(zero_mean=False), 4.944412)


def test_it_is_the_limit_of_soft_targets() -> None:
    student, teacher, targets = random_logits((5, 9))
    one, two = (student.clone().requires_grad_() for _ in range(2))
    batch = Batch(torch.empty(0), targets, targets)
    found = gradient(LogitRegression()(Outputs(one), Outputs(teacher), batch), one)
    limit = gradient(soft_target_loss(two, teacher, 1e4), two)
    torch.testing.assert_close(found, limit, rtol=1e-3, atol=1e-4)


def test_a_shift_of_all_logits_changes_nothing() -> None:
    student, teacher, targets = random_logits((5, 9))
    batch = Batch(torch.empty(0), targets, targets)
    before = LogitRegression()(Outputs(student), Outputs(teacher), batch)
    after = LogitRegression()(Outputs(student + 7), Outputs(teacher - 3), batch)
    torch.testing.assert_close(before, after)
