"""Wasserstein distillation: optimal transport of logits, Gaussians of features."""

import math

import numpy as np
import pytest
import torch
from losses.cases import make_case
from losses.logit_cases import batch_of, fixed_logits, random_logits, softmax
from losses.map_cases import assert_same, exact_case
from torch import Tensor

from kdrun.losses.ramps import cosine_fall
from kdrun.losses.wkd_l import (
    WassersteinLogits,
    classifier_similarity,
    sinkhorn_distance,
    transport_costs,
)
from kdrun.types import Outputs


def built(classes: int, **settings: object) -> WassersteinLogits:
    """The loss with the costs of a classifier by a formula."""
    loss = WassersteinLogits(**settings)  # type: ignore[arg-type]
    rows = torch.sin(1.3 * torch.arange(classes * 3).double()).view(classes, 3)
    loss.cost = transport_costs(classifier_similarity(rows), loss.kappa)
    return loss


def transport(p: np.ndarray, q: np.ndarray, cost: np.ndarray, penalty: float, steps: int) -> float:
    """Sinkhorn's iterations for one pair of distributions, in NumPy."""
    kernel = np.exp(-cost / penalty)
    u = np.full(len(p), 1 / len(p))
    for _ in range(steps):
        v = q / (kernel.T @ u + 1e-8)
        u = p / (kernel @ v + 1e-8)
    return float((u[:, None] * kernel * v[None, :] * cost).sum())


@pytest.mark.parametrize("classes", [3, 10])
def test_logits_equal_to_numpy(classes: int) -> None:
    student, teacher, targets = random_logits((4, classes))
    loss = built(classes, temperature=8.0, transport=600.0)
    cost = loss.cost.numpy()
    expected = 0.0
    for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
        kept = [c for c in range(classes) if c != y]
        p, q = (np.array(softmax(z[kept], 8.0)) for z in (s, t))
        expected -= float(softmax(t)[y] * softmax(s)[y].log())
        expected += 600.0 * transport(p, q, cost[np.ix_(kept, kept)], 0.05, 10)
    found = loss(Outputs(student), Outputs(teacher), batch_of(targets))
    assert float(found) == pytest.approx(expected / 4, rel=1e-9)


def test_costs_by_hand() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]).double()
    cost = transport_costs(classifier_similarity(rows), 1.0)
    assert float(cost[0, 0]) == pytest.approx(1e-8)
    assert float(cost[0, 1]) == pytest.approx(1 - math.exp(-1), abs=1e-7)
    assert float(cost[0, 2]) == pytest.approx(1 - math.exp(-2), abs=1e-7)


def test_transport_to_a_similar_class_is_cheaper() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]]).double()
    cost = transport_costs(classifier_similarity(rows), 1.0)[None]
    first, second, third = torch.eye(3).double().clamp(min=1e-6)[:, None]
    distances = [
        float(sinkhorn_distance(first, other, cost, 0.05, 200)) for other in (first, second, third)
    ]
    assert distances[0] < distances[1] < distances[2]
    assert distances[2] == pytest.approx(float(cost[0, 0, 2]), rel=1e-2)


def test_two_classes_leave_the_targets_part() -> None:
    student, teacher, targets = random_logits((5, 2))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    assert torch.equal(built(2, transport=0.0)(*case), built(2, transport=900.0)(*case))


def test_the_costs_are_those_of_the_teachers_classifier() -> None:
    case = make_case("wkd_l", classes=5)
    cost = case.term.cost
    assert cost.shape == (5, 5)
    torch.testing.assert_close(cost, cost.T)
    assert float(cost.diagonal().max()) < 1e-6 < float(cost[0, 1])


def test_the_transport_falls_by_a_cosine() -> None:
    student, teacher, batch = fixed_logits()
    loss = built(5, transport_decay_after=2)
    values = []
    for epoch in (0, 1, 4, 6):
        loss.start_epoch(epoch, 6)
        values.append(float(loss(student, teacher, batch)))
    target = float(built(5, transport=0.0)(student, teacher, batch))
    assert values[0] == values[1]
    assert values[2] - target == pytest.approx(0.5 * (values[0] - target), rel=1e-5)
    assert values[3] == pytest.approx(target, rel=1e-6)
    assert [cosine_fall(e, 10, 0) for e in (0, 9)] == [1.0, 1.0]


def test_features_equal_to_the_loops() -> None:
    case = exact_case("wkd_f", batch=3)
    (adapter,) = case.term.adapters
    (student_tap, teacher_tap) = case.term.pairs[0]

    def expected() -> Tensor:
        mapped = adapter(case.student.features[student_tap])
        target = case.teacher.features[teacher_tap]
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(mapped, target, strict=True):
            for a, b in zip(s, t, strict=True):
                deviations = (a.var() + 1e-5).sqrt() - (b.var() + 1e-5).sqrt()
                total = total + 4 * (a.mean() - b.mean()) ** 2 + deviations**2
        return total / len(mapped)

    assert_same(case, expected)


def test_a_map_of_one_place_has_no_deviation() -> None:
    case = make_case("wkd_f", "mlp")
    assert torch.isfinite(case.loss())


def test_frozen_values() -> None:
    student, teacher, batch = fixed_logits()
    assert float(built(5)(student, teacher, batch)) == pytest.approx(13.8045464, rel=1e-5)
