"""Correlation congruence."""

import itertools
import math

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, total
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.cc import CorrelationCongruence, kernel


def linear(layer: nn.Module, vector: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    rows = [(weights * vector).sum() for weights in layer.weight]
    return torch.stack(rows) + layer.bias


def neighbours(case: Case) -> Tensor:
    term = case.term
    deltas = [
        (linear(term.embed_student, s) - linear(term.embed_teacher, t)).abs()
        for s, t in zip(case.student.embedding, case.teacher.embedding, strict=True)
    ]
    products = [(a * b).sum() for a, b in itertools.pairwise(deltas)]
    return total(products) / len(products)


def gaussian(a: Tensor, b: Tensor, gamma: float, order: int) -> Tensor:
    cosine = (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())
    terms = [
        math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * cosine**p
        for p in range(order + 1)
    ]
    return total(terms)


def kernels(case: Case) -> Tensor:
    term, count = case.term, len(case.student.embedding)
    terms = []
    for i in range(count):
        for j in range(count):
            k_s, k_t = (
                gaussian(e[i], e[j], term.gamma, term.order)
                for e in (case.student.embedding, case.teacher.embedding)
            )
            terms.append((k_s - k_t) ** 2)
    return total(terms) / count**2


@pytest.mark.parametrize("pair", ["cnn", "mobilenet", "mlp"])
def test_neighbouring_differences_in_loops(pair: str) -> None:
    case = exact_case("cc", pair, dim=5)
    assert_same(case, lambda: neighbours(case))


@pytest.mark.parametrize("pair", ["cnn", "mobilenet"])
@pytest.mark.parametrize("order", [2, 3])
def test_kernels_in_loops(pair: str, order: int) -> None:
    case = exact_case("cc", pair, variant="paper", order=order)
    assert_same(case, lambda: kernels(case))


def test_the_series_comes_near_the_gaussian() -> None:
    directions = nn.functional.normalize(torch.randn(5, 7, dtype=torch.float64), dim=1)
    distances = torch.cdist(directions, directions)
    expected = (-0.4 * distances.square()).exp()
    torch.testing.assert_close(kernel(directions, 0.4, 20), expected)
    assert (kernel(directions, 0.4, 2) - expected).abs().max() < 0.1


def test_the_paper_trains_no_layer() -> None:
    assert not list(make_case("cc", variant="paper").term.parameters())


def test_one_image_has_no_neighbour() -> None:
    assert make_case("cc", batch=1).loss() == 0


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("cc", "mobilenet", variant=variant).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"repdistiller": 56.318871, "paper": 0.0035342043}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="gamma=0 must be above 0"):
        CorrelationCongruence(gamma=0.0)
    with pytest.raises(ConfigError, match="at least 1"):
        CorrelationCongruence(dim=0)
