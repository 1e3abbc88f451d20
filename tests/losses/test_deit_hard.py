"""DeiT's hard distillation: cross-entropy with the teacher's class."""

import pytest
import torch
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    batch_of,
    random_logits,
    softmax,
)
from torch import Tensor

from kdrun.losses.deit_hard import DeitHard
from kdrun.types import Outputs


def reference(smoothing: float):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(student, teacher, strict=True):
            decision = max(range(len(t)), key=lambda c: float(t[c]))
            for number, p in enumerate(softmax(s)):
                share = smoothing / len(s) + (1 - smoothing) * (number == decision)
                total = total - share * p.log()
        return total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_equals_the_sum_written_out(shape: tuple[int, int], smoothing: float) -> None:
    assert_equals(DeitHard(smoothing), reference(smoothing), shape)


def test_the_labels_do_not_matter() -> None:
    student, teacher, targets = random_logits((6, 4))
    one = DeitHard()(Outputs(student), Outputs(teacher), batch_of(targets))
    two = DeitHard()(Outputs(student), Outputs(teacher), batch_of(3 - targets))
    assert torch.equal(one, two)


def test_frozen_numbers() -> None:
    assert_golden(DeitHard(), 3.548484)
    assert_golden(DeitHard(0.1), 3.505049)
