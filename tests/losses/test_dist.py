"""DIST: one minus Pearson's correlation, per image and per class."""

import numpy as np
import pytest
import torch
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    batch_of,
    fixed_logits,
    random_logits,
    softmax,
)
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.dist import CorrelationDistillation, correlation
from kdrun.types import Outputs


def pearson(a: list[Tensor], b: list[Tensor], epsilon: float) -> Tensor:
    """Covariance over the product of deviations, written out; 0 where one of them is constant."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    power = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    varies = float(power.detach()) > 0
    return covariance / (power.sqrt() + epsilon) if varies else torch.zeros(()).double()


def reference(temperature: float, beta: float, gamma: float, factor: float):  # type: ignore[no-untyped-def]
    epsilon = 1e-8 if factor > 1 else 0.0  # the authors' code has both, the paper neither

    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        p = [softmax(row, temperature) for row in student]
        q = [softmax(row, temperature) for row in teacher]
        inter = sum(1 - pearson(a, b, epsilon) for a, b in zip(p, q, strict=True)) / len(p)
        columns = list(zip(zip(*p, strict=True), zip(*q, strict=True), strict=True))
        intra = sum(1 - pearson(list(a), list(b), epsilon) for a, b in columns) / len(columns)
        return factor * (beta * inter + gamma * intra)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5)])
def test_it_equals_the_sum_written_out(
    shape: tuple[int, int], weights: tuple[float, float]
) -> None:
    code = CorrelationDistillation(4.0, *weights)
    assert_equals(code, reference(4.0, *weights, 16.0), shape)
    paper = CorrelationDistillation(4.0, *weights, variant="paper")
    assert_equals(paper, reference(4.0, *weights, 1.0), shape)


def test_the_correlation_is_that_of_numpy() -> None:
    a, b, _ = random_logits((6, 9))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(correlation(a, b).numpy(), expected, rtol=1e-10)


def test_the_codes_epsilon_changes_gradients_of_flat_columns() -> None:
    """At 100 classes and T = 4 a column varies by about 1e-4: 1e-8 is no rounding error there."""
    student, teacher, targets = random_logits((8, 100))
    gradients = []
    for factor, variant in ((1.0, "code"), (16.0, "paper")):
        leaf = (0.1 * student).requires_grad_()
        loss = CorrelationDistillation(4.0, variant=variant)
        value = factor * loss(Outputs(leaf), Outputs(0.1 * teacher), batch_of(targets))
        gradients.append(torch.autograd.grad(value, leaf)[0])
    difference = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    assert 1e-7 < float(difference) < 1e-2


def test_a_row_without_variation_has_no_correlation_and_no_gradient() -> None:
    a = torch.full((1, 5), 0.2, requires_grad=True)
    found = correlation(a, torch.arange(5.0)[None])
    found.sum().backward()
    assert found.tolist() == [0.0]
    assert torch.equal(a.grad, torch.zeros(1, 5))  # type: ignore[arg-type]


def test_frozen_numbers() -> None:
    assert_golden(CorrelationDistillation(), 36.88472)
    assert_golden(CorrelationDistillation(1.0, variant="paper"), 2.628913)


def test_scores_that_agree_up_to_scale_cost_nothing_within_images() -> None:
    _, teacher, batch = fixed_logits()
    term = CorrelationDistillation(gamma=0.0)
    log_p = torch.log(0.2 + 0.5 * (torch.softmax(teacher.logits / 4.0, dim=1) - 0.2))
    assert abs(float(term(Outputs(4.0 * log_p), teacher, batch))) < 1e-5
    assert float(term(Outputs(-teacher.logits), teacher, batch)) > 1.0


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ConfigError, match="variant=papr"):
        CorrelationDistillation(variant="papr")
