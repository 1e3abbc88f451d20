"""Curriculum temperature: a learned temperature that climbs while the student descends."""

import math

import pytest
import torch
from losses.logit_cases import SHAPES, assert_golden, batch_of, gradient, random_logits
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.ctkd import CurriculumTemperature
from kdrun.losses.dkd import DecoupledDistillation
from kdrun.losses.kd import SoftTargets
from kdrun.types import Outputs

START = 1.0 + 20.0 / (1.0 + math.exp(-1.0))


def term_at(theta: float, epoch: int = 99, **settings: object) -> CurriculumTemperature:
    term = CurriculumTemperature(**settings).double()  # type: ignore[arg-type]
    with torch.no_grad():
        term.theta.fill_(theta)
    term.start_epoch(epoch, 240)
    return term


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("theta", [1.0, -2.0])
@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_the_student_sees_its_base_loss_at_the_learned_temperature(
    shape: tuple[int, int], theta: float, base: str
) -> None:
    student, teacher, targets = random_logits(shape)
    one, two = (student.clone().requires_grad_() for _ in range(2))
    temperature = 1.0 + 20.0 / (1.0 + math.exp(-theta))
    plain = SoftTargets(temperature) if base == "kd" else DecoupledDistillation(temperature)
    found = term_at(theta, base=base)(Outputs(one), Outputs(teacher), batch_of(targets))
    expected = plain(Outputs(two), Outputs(teacher), batch_of(targets))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, one), gradient(expected, two))


@pytest.mark.parametrize("epoch", [0, 4, 9, 100])
def test_the_temperatures_gradient_is_the_true_one_times_minus_lambda(epoch: int) -> None:
    student, teacher, targets = random_logits((5, 6))
    case = Outputs(student), Outputs(teacher), batch_of(targets)

    def value(theta: float) -> float:
        return float(SoftTargets(1.0 + 20.0 / (1.0 + math.exp(-theta)))(*case))

    slope = (value(1.0 + 1e-5) - value(1.0 - 1e-5)) / 2e-5
    strength = (1.0 - math.cos(math.pi * min(epoch + 1, 10) / 10)) / 2.0
    term = term_at(1.0, epoch)
    found = gradient(term(*case), term.theta)
    assert float(found) == pytest.approx(-strength * slope, rel=1e-5)


def test_lambda_rises_along_half_a_cosine() -> None:
    term = CurriculumTemperature()
    values = []
    for epoch in range(12):
        term.start_epoch(epoch, 12)
        values.append(float(term.strength))
    assert values[0] == pytest.approx(0.0244717, rel=1e-4)
    assert values[4] == pytest.approx(0.5, rel=1e-5)
    assert values[9:] == [1.0, 1.0, 1.0]


def test_one_step_makes_the_task_harder() -> None:
    student, teacher, targets = random_logits((8, 6))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    term = term_at(1.0)
    before: Tensor = term(*case)
    before.backward()
    with torch.no_grad():
        assert term.theta.grad is not None
        term.theta -= 0.01 * term.theta.grad
    assert float(term(*case).detach()) > float(before.detach())


def test_it_starts_at_the_published_temperature() -> None:
    term = CurriculumTemperature()
    assert float(term.current_temperature().detach()) == pytest.approx(START)
    assert set(term.state_dict()) == {"theta", "strength"}


def test_frozen_numbers() -> None:
    assert_golden(CurriculumTemperature(), 4.707937)
    assert_golden(CurriculumTemperature(base="dkd"), 31.05781)
    assert_golden(CurriculumTemperature(standardise=True), 0.8888044)


def test_unknown_bases_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.ctkd\.base=kdd"):
        CurriculumTemperature(base="kdd")


def test_only_its_form_on_dkd_reads_labels() -> None:
    assert not CurriculumTemperature().reads_labels
    assert CurriculumTemperature(base="dkd").reads_labels
