"""Simple recipe distillation: the logarithm of a sum of powers, and KL."""

import math

import pytest
import torch
from losses.map_cases import assert_same, exact_case
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError


def standardised(rows: Tensor) -> Tensor:
    return (rows - rows.mean(dim=0)) / (rows.var(dim=0, unbiased=False) + 1e-5).sqrt()


@pytest.mark.parametrize("exponent", [2.0, 4.0])
def test_equal_to_the_sum_written_out(exponent: float) -> None:
    case = exact_case("srd", batch=5, exponent=exponent, temperature=2.0)
    layer = case.term.projection

    def expected() -> Tensor:
        projected = F.linear(case.student.embedding, layer.weight, layer.bias)
        gaps = standardised(projected) - standardised(case.teacher.embedding)
        total = sum((gap.abs() ** exponent for gap in gaps.flatten()), torch.zeros(()).double())
        p = torch.softmax(case.teacher.logits / 2, dim=1)
        log_p = torch.log_softmax(case.student.logits / 2, dim=1)
        kl = (p * (p.log() - log_p)).sum(dim=1).mean()
        return 2 * (total + 1e-12).log() + kl

    assert_same(case, expected)


def test_embeddings_scaled_and_shifted_by_dimension_are_equal() -> None:
    """Batch normalisation on both sides: only the floor of the logarithm is left."""
    case = exact_case("srd", pair="same", batch=6)
    layer = case.term.projection
    with torch.no_grad():
        layer.weight.copy_(torch.eye(len(layer.weight)).double() * 3)
        layer.bias.fill_(2.0)
        case.student.embedding.copy_(case.teacher.embedding)
        case.student.logits.copy_(case.teacher.logits)
    assert float(case.loss()) == pytest.approx(2 * math.log(1e-12), rel=0.1)


def test_frozen_value() -> None:
    case = exact_case("srd", batch=4)
    with torch.no_grad():
        for tensor in (*case.term.parameters(), case.student.embedding, case.student.logits):
            tensor.copy_(torch.sin(1.7 * torch.arange(tensor.numel()).double()).view_as(tensor))
        for tensor in (case.teacher.embedding, case.teacher.logits):
            tensor.copy_(torch.sin(0.9 * torch.arange(tensor.numel()).double()).view_as(tensor))
    assert float(case.loss()) == pytest.approx(14.0793547, rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 16.0])
def test_a_perfect_student_has_finite_gradients(exponent: float) -> None:
    case = exact_case("srd", pair="same", batch=6, exponent=exponent)
    layer = case.term.projection
    with torch.no_grad():
        layer.weight.copy_(torch.eye(len(layer.weight)).double())
        layer.bias.zero_()
        case.student.embedding.copy_(case.teacher.embedding)
    gradients = torch.autograd.grad(case.loss(), [case.student.embedding, layer.weight])
    assert all(gradient.isfinite().all() for gradient in gradients)
    with pytest.raises(ConfigError, match="at least 1"):
        exact_case("srd", exponent=0.5)
