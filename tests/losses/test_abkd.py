"""The alpha-beta divergence: the definition in loops, its limits, its special cases."""

import pytest
import torch
from losses.logit_cases import SHAPES, assert_equals, assert_golden, random_logits, softmax
from torch import Tensor

from kdrun.losses.abkd import AlphaBetaDivergence, divergence
from kdrun.losses.kd import SoftTargets

POWERS = [
    (0.8, 0.3),
    (0.5, 0.5),
    (2.0, 1.0),
    (1.0, 0.0),
    (0.0, 1.0),
    (0.6, 0.0),
    (0.0, 2.0),
    (0, 0),
]


def summand(p: Tensor, q: Tensor, a: float, b: float) -> Tensor:
    """One class of the divergence, by its definition."""
    if a == 0 and b == 0:
        return (p.log() - q.log()) ** 2 / 2
    if b == 0:
        return (p**a * torch.log(p**a / q**a) - p**a + q**a) / a**2
    if a == 0:
        return (q**b * torch.log(q**b / p**b) - q**b + p**b) / b**2
    both = a + b
    return -(p**a * q**b - a / both * p**both - b / both * q**both) / (a * b)


@pytest.mark.parametrize("powers", POWERS)
def test_it_equals_the_definition(powers: tuple[float, float]) -> None:
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(student, teacher, strict=True):
            for q, p in zip(softmax(s, 2.0), softmax(t, 2.0), strict=True):
                total = total + summand(p, q, *powers)
        return total / len(student)

    for shape in SHAPES[:2]:
        assert_equals(AlphaBetaDivergence(*powers, temperature=2.0), loss, shape)


def test_kl_is_the_case_1_0_and_reverse_kl_0_1() -> None:
    student, teacher, _ = random_logits((4, 6))
    kd = SoftTargets(3.0)(student, teacher) / 9.0
    back = SoftTargets(3.0)(teacher, student) / 9.0
    assert float(AlphaBetaDivergence(1.0, 0.0, 3.0)(student, teacher)) == pytest.approx(float(kd))
    assert float(AlphaBetaDivergence(0.0, 1.0, 3.0)(student, teacher)) == pytest.approx(float(back))


def test_half_and_half_is_the_hellinger_distance() -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]).double(), torch.tensor([[0.3, 0.3, 0.4]]).double()
    expected = 4.0 * 0.5 * float(((p.sqrt() - q.sqrt()) ** 2).sum())
    assert float(divergence(p.log(), q.log(), 0.5, 0.5)) == pytest.approx(expected)


@pytest.mark.parametrize(("near", "at"), [((0.7, 1e-5), (0.7, 0.0)), ((1e-5, 0.7), (0.0, 0.7))])
def test_it_is_continuous_where_a_power_is_0(
    near: tuple[float, float], at: tuple[float, float]
) -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]).double(), torch.tensor([[0.3, 0.3, 0.4]]).double()
    values = [float(divergence(p.log(), q.log(), *powers)) for powers in (near, at)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_it_is_0_only_for_equal_distributions() -> None:
    p, q = torch.tensor([[0.6, 0.4]]).double(), torch.tensor([[0.5, 0.5]]).double()
    for powers in POWERS:
        assert float(divergence(p.log(), p.log(), *powers)) == pytest.approx(0.0, abs=1e-15)
        assert float(divergence(p.log(), q.log(), *powers)) > 1e-3


def test_frozen_numbers() -> None:
    assert_golden(AlphaBetaDivergence(), 0.2363047)
    assert AlphaBetaDivergence().symbol() == "AB(0.8, 0.3; T=4)"
