"""Weighted soft labels: each image's cross-entropy times a weight that passes no gradient."""

import math

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

from kdrun.losses.wsld import WeightedSoftLabels
from kdrun.types import Outputs


def reference(temperature: float):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
            hard_s = -math.log(float(softmax(s.detach())[y]))  # a plain number: no gradient
            hard_t = -math.log(float(softmax(t)[y]))
            weight = 1 - math.exp(-hard_s / (hard_t + 1e-7))
            pairs = zip(softmax(s, temperature), softmax(t, temperature), strict=True)
            total = total - weight * sum(q * p.log() for p, q in pairs)
        return temperature**2 * total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_it_equals_the_sum_written_out(shape: tuple[int, int], temperature: float) -> None:
    assert_equals(WeightedSoftLabels(temperature), reference(temperature), shape)


def test_images_that_the_student_masters_do_not_count() -> None:
    _, teacher, targets = random_logits((4, 5))
    sure = torch.nn.functional.one_hot(targets, 5) * 100.0
    batch = batch_of(targets)
    found = WeightedSoftLabels()(Outputs(sure), Outputs(teacher), batch)
    assert float(found) == pytest.approx(0.0, abs=1e-6)


def test_frozen_numbers() -> None:
    assert_golden(WeightedSoftLabels(), 7.05438)
    assert_golden(WeightedSoftLabels(1.0), 2.804662)
