"""Soft targets: KL of softened probabilities, times T²."""

import pytest
import torch
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    divergence,
    gradient,
    random_logits,
    softmax,
    z_scores,
)
from torch import Tensor

from kdrun.losses.kd import SoftTargets, soft_target_loss


def reference(temperature: float, standardised: bool = False):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(student, teacher, strict=True):
            if standardised:
                s, t = z_scores(s), z_scores(t)
            total = total + divergence(softmax(t, temperature), softmax(s, temperature))
        return temperature**2 * total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_it_equals_the_sum_written_out(shape: tuple[int, int], temperature: float) -> None:
    assert_equals(SoftTargets(temperature), reference(temperature), shape)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_z_scores_can_be_compared_instead(shape: tuple[int, int]) -> None:
    assert_equals(SoftTargets(2.0, standardise=True), reference(2.0, True), shape)


def test_frozen_numbers() -> None:
    assert_golden(SoftTargets(), 4.519237)
    assert_golden(SoftTargets(1.0), 2.740906)
    assert_golden(SoftTargets(2.0, standardise=True), 0.8587446)


def test_the_gradient_at_high_temperature_is_the_difference_of_logits() -> None:
    student, teacher, _ = random_logits((3, 8))
    student.requires_grad_()
    found = gradient(soft_target_loss(student, teacher, 1e4), student)
    gap = student - teacher
    expected = (gap - gap.mean(dim=1, keepdim=True)) / (8 * 3)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-4)


def test_its_symbol_holds_the_numbers() -> None:
    assert SoftTargets(4.0).symbol() == "16*KL(T=4)"
    assert SoftTargets(2.0, standardise=True).symbol() == "4*KL(T=2, z-scores)"
