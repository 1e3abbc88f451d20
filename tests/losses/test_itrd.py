"""Information-theoretic distillation: correlation and mutual information in loops."""

import math

import pytest
import torch
from losses.cases import make_case
from losses.map_cases import assert_same, exact_case
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.itrd import correlation_loss, mutual_information_loss


def correlation_in_loops(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    count, width = student.shape
    total = torch.zeros((), dtype=student.dtype)
    for d in range(width):
        s, t = student[:, d], teacher[:, d]
        c = ((s - s.mean()) / s.std() * (t - t.mean()) / t.std()).sum() / count
        total = total + ((c - 1) ** 2) ** alpha
    return total.log() / math.log(2)


def mutual_in_loops(student: Tensor, teacher: Tensor) -> Tensor:
    count = len(student)

    def cosine(rows: Tensor, i: int, j: int) -> Tensor:
        return F.cosine_similarity(rows[i], rows[j], dim=0)

    total = torch.zeros((), dtype=student.dtype)
    for i in range(count):
        for j in range(count):
            own, other = cosine(student, i, j), cosine(teacher, i, j)
            total = total + (own / count) ** 2 - (own * other / count) ** 2
    return total


def test_equal_to_the_loops() -> None:
    case = exact_case("itrd", batch=5)
    layer = case.term.projection
    target = case.teacher.embedding

    def expected() -> Tensor:
        projected = F.linear(case.student.embedding, layer.weight, layer.bias)
        return 2 * correlation_in_loops(projected, target, 1.01) + mutual_in_loops(
            projected, target
        )

    assert_same(case, expected)


def test_equal_widths_compare_the_embedding_itself() -> None:
    case = exact_case("itrd", pair="same", batch=5, correlation=0.0)
    assert_same(case, lambda: mutual_in_loops(case.student.embedding, case.teacher.embedding))


def test_perfect_correlation_is_finite() -> None:
    """c_d = (B - 1) / B at best, so that the logarithm ends at log2(D / B^(2 alpha))."""
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double()
    found = correlation_loss(features, 3 * features + 1, 1.01)
    assert float(found) == pytest.approx(math.log2(5 / 8**2.02))


def test_a_dead_dimension_counts_as_uncorrelated() -> None:
    features = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    dead = torch.cat((features[:, :1], torch.ones(6, 1).double()), dim=1).requires_grad_()
    loss = correlation_loss(dead, features, 1.0)
    (gradient,) = torch.autograd.grad(loss, dead)
    assert float(loss.detach()) == pytest.approx(math.log2(1 + (1 / 6) ** 2))
    assert not gradient[:, 1].any()


def test_equal_similarities_leave_what_the_product_takes() -> None:
    """Orthogonal samples: both Gram matrices are the identity, and the difference is 0."""
    assert float(mutual_information_loss(torch.eye(4), torch.eye(4))) == 0.0


def test_frozen_values() -> None:
    rows = torch.sin(1.7 * torch.arange(20).double()).view(5, 4)
    other = torch.sin(0.9 * torch.arange(20).double() + 1).view(5, 4)
    assert float(correlation_loss(rows, other, 1.01)) == pytest.approx(1.9275659, rel=1e-6)
    assert float(mutual_information_loss(rows, other)) == pytest.approx(0.09374097, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 4.0])
def test_every_order_is_finite_for_a_perfect_student(alpha: float) -> None:
    case = make_case("itrd", pair="same", batch=64, alpha=alpha)
    with torch.no_grad():
        case.term.projection.weight.copy_(torch.eye(len(case.term.projection.weight)))
        case.term.projection.bias.zero_()
        case.student.embedding.copy_(case.teacher.embedding)
    value = case.loss()
    value.backward()
    assert value.isfinite()
    assert case.student.embedding.grad.isfinite().all()
    with pytest.raises(ConfigError, match="at most 4"):
        make_case("itrd", alpha=50.0)
