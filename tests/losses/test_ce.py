"""Cross-entropy with the hard labels."""

import pytest
import torch
from losses.logit_cases import SHAPES, assert_equals, assert_golden, softmax
from torch import Tensor

from kdrun.losses.ce import CrossEntropy


def reference(smoothing: float):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, target in zip(student, targets.tolist(), strict=True):
            for number, p in enumerate(softmax(row)):
                share = smoothing / len(row) + (1 - smoothing) * (number == target)
                total = total - share * p.log()
        return total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_equals_the_sum_written_out(shape: tuple[int, int], smoothing: float) -> None:
    assert_equals(CrossEntropy(smoothing), reference(smoothing), shape)


def test_frozen_numbers() -> None:
    assert_golden(CrossEntropy(), 3.410486)
    assert_golden(CrossEntropy(0.1), 3.380851)
