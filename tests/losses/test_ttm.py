"""Transformed teacher matching, with and without the sample's weight."""

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

from kdrun.losses.kd import SoftTargets
from kdrun.losses.ttm import TransformedTeacherMatching
from kdrun.losses.wttm import WeightedTeacherMatching
from kdrun.types import Outputs

GAMMAS = [0.1, 0.25, 1.0, 2.0]


def reference(gamma: float, weighted: bool):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(student, teacher, strict=True):
            powers = [p**gamma for p in softmax(t)]
            smoothness = sum(powers)
            value = divergence([p / smoothness for p in powers], softmax(s))
            total = total + (smoothness * value if weighted else value)
        return total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_equal_to_the_loop(shape: tuple[int, int], gamma: float) -> None:
    assert_equals(TransformedTeacherMatching(gamma), reference(gamma, False), shape)
    assert_equals(WeightedTeacherMatching(gamma), reference(gamma, True), shape)


def test_gamma_is_the_inverse_temperature_of_the_teacher() -> None:
    """q equals kd's soft targets at T = 1/gamma; at gamma = 1 the whole loss is kd at T = 1."""
    student, teacher, targets = random_logits((6, 10))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    loss = TransformedTeacherMatching(0.25)
    hot = torch.softmax(teacher / 4.0, dim=1)
    expected = (hot * (hot.log() - torch.log_softmax(student, dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(loss(*case), expected)
    assert loss.target_temperature() == 4.0
    torch.testing.assert_close(
        TransformedTeacherMatching(1.0)(*case), SoftTargets(temperature=1.0)(*case)
    )


def test_the_samples_weight_is_one_at_gamma_one() -> None:
    student, teacher, targets = random_logits((6, 10))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    torch.testing.assert_close(
        WeightedTeacherMatching(1.0)(*case), TransformedTeacherMatching(1.0)(*case)
    )


def test_small_probabilities_survive_float32() -> None:
    """softmax([0, 120]) is (0, 1) in float32, whose 0.1th power would lose the first class."""
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 120.0]])
    case = Outputs(student), Outputs(teacher), batch_of(torch.zeros(1))
    found = TransformedTeacherMatching(0.1)(*case)
    q = torch.softmax(torch.tensor([0.0, 12.0]).double(), dim=0)
    expected = float((q * (q.log() - torch.tensor(0.5).double().log())).sum())
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_frozen_values() -> None:
    assert_golden(TransformedTeacherMatching(), 1.576076)
    assert_golden(WeightedTeacherMatching(), 4.920654)
