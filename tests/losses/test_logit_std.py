"""Logit standardisation: soft targets of z-scores."""

import numpy as np
import pytest
import torch
from losses.cases import make_objective
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    batch_of,
    divergence,
    fixed_logits,
    random_logits,
    softmax,
    z_scores,
)
from torch import Tensor

from kdrun.losses.dkd import DecoupledDistillation
from kdrun.losses.kd import SoftTargets
from kdrun.losses.logit_parts import standardise
from kdrun.losses.logit_std import LogitStandardisation
from kdrun.types import Outputs


def reference(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        total = total + divergence(softmax(z_scores(t), 2.0), softmax(z_scores(s), 2.0))
    return 4.0 * total / len(student)


@pytest.mark.parametrize("shape", SHAPES[:2] + SHAPES[3:])
def test_it_equals_the_sum_written_out(shape: tuple[int, int]) -> None:
    assert_equals(LogitStandardisation(), reference, shape)


def test_z_scores_are_those_of_numpy() -> None:
    logits, _, _ = random_logits((5, 12))
    expected = (logits.numpy() - logits.numpy().mean(1, keepdims=True)) / (
        np.std(logits.numpy(), axis=1, ddof=1, keepdims=True) + 1e-7
    )
    np.testing.assert_allclose(standardise(logits).numpy(), expected, rtol=1e-12)


def test_rows_without_spread_become_zeros_without_gradient() -> None:
    logits = torch.full((2, 4), 3.0, requires_grad=True)
    scores = standardise(logits)
    scores.square().sum().backward()
    assert torch.equal(scores, torch.zeros(2, 4))
    assert torch.equal(logits.grad, torch.zeros(2, 4))  # type: ignore[arg-type]


def test_only_the_shape_of_the_teachers_logits_counts() -> None:
    student, teacher, targets = random_logits((4, 6))
    term = LogitStandardisation()
    before = term(Outputs(student), Outputs(teacher), batch_of(targets))
    after = term(Outputs(student), Outputs(5 * teacher + 2), batch_of(targets))
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-8)


def test_the_parameter_of_kd_is_the_same_thing_and_dkd_differs() -> None:
    case = fixed_logits()
    assert torch.equal(LogitStandardisation(3.0)(*case), SoftTargets(3.0, True)(*case))
    assert not torch.isclose(
        DecoupledDistillation(standardise=True)(*case), DecoupledDistillation()(*case)
    )


def test_frozen_numbers() -> None:
    assert_golden(LogitStandardisation(), 0.8587446)


def test_alone_it_makes_the_published_objective() -> None:
    assert make_objective("logit_std").describe() == "0.1*CE + 9*4*KL(T=2, z-scores)"
    assert make_objective("logit_std", "sp").describe().startswith("0.1*CE + 9*")
    assert make_objective("dkd").describe().startswith("1*CE + ")
