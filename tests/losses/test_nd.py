"""Norm and direction: embeddings along the class means of the teacher."""

import math

import numpy as np
import pytest
import torch
from losses.cases import make_case
from losses.map_cases import assert_same, exact_case
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses import ND
from kdrun.losses.class_statistics import class_means, first_of_each_class, linear_cka
from kdrun.losses.nd import NormAndDirection


def by_hand(s: Tensor, t: Tensor, means: Tensor, targets: Tensor) -> Tensor:
    """Image by image; the longer length is differentiated when it is the student's."""
    total = torch.zeros(()).double()
    for a, b, y in zip(s, t, targets.tolist(), strict=True):
        center = means[y] / math.sqrt(sum(float(v) ** 2 for v in means[y]))
        lengths = a.square().sum().sqrt(), b.square().sum().sqrt()
        longer = lengths[0] if lengths[0] >= lengths[1] else lengths[1]
        total = total + 1 - sum(x * c for x, c in zip(a, center, strict=True)) / longer
    return total / len(s)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])  # of the student: shorter, mixed, longer
def test_it_equals_the_loops(scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    s, t, means = (torch.randn(size, 5, generator=draw).double() for size in (8, 8, 4))
    targets = torch.arange(8) % 4
    one, two = ((scale * s).requires_grad_() for _ in range(2))
    found, expected = ND(class_means=means)(one, t, targets), by_hand(two, t, means, targets)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    gradients = (torch.autograd.grad(v, x)[0] for v, x in ((found, one), (expected, two)))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)


def test_other_widths_pass_a_projector() -> None:
    case = exact_case("nd", "cnn", batch=6)
    norm, layer = case.term.projector[1], case.term.projector[4]
    assert isinstance(norm, nn.BatchNorm2d)
    means = torch.randn(case.term.directions.shape, generator=torch.Generator().manual_seed(1))
    case.term.directions = torch.nn.functional.normalize(means.double(), dim=1)

    def expected() -> Tensor:
        raw = case.student.embedding
        centred = raw - raw.mean(dim=0)
        normed = centred / (centred.square().mean(dim=0) + norm.eps).sqrt()
        projected = (normed * norm.weight + norm.bias) @ layer.weight.T + layer.bias
        return by_hand(projected, case.teacher.embedding, means.double(), case.batch.targets)

    assert_same(case, expected)


def test_a_student_on_the_class_mean_and_long_enough_has_no_loss() -> None:
    means = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    targets = torch.tensor([0, 1])
    teacher = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    loss = ND(class_means=means)
    assert loss(2 * means, teacher, targets).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(-means, teacher, targets).item() == pytest.approx((2 + 1 + 1 / 2**0.5) / 2)
    zeros = torch.zeros(2, 2, requires_grad=True)
    loss(zeros, zeros.detach(), targets).backward()
    assert torch.isfinite(zeros.grad).all()


def test_class_means_are_measured_on_the_training_images() -> None:
    case = make_case("nd", "same")
    lengths = case.term.directions.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert isinstance(case.term.projector, nn.Identity)
    assert len({tuple(row.tolist()) for row in case.term.directions}) == 5


def test_means_and_first_images_by_hand() -> None:
    targets = torch.tensor([2, 0, 2, 0, 0, 2, 2])
    embeddings = torch.arange(14.0).view(7, 2)
    means = class_means(embeddings, targets, 4)
    assert means[0].tolist() == pytest.approx([(2 + 6 + 8) / 3, (3 + 7 + 9) / 3])
    assert means[1].tolist() == means[3].tolist() == [0.0, 0.0]
    places = first_of_each_class(targets, 4)
    assert places.tolist() == [[1, 3, 4], [-1] * 3, [0, 2, 5], [-1] * 3]


def test_linear_cka_equals_numpy() -> None:
    samples = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    found = linear_cka(samples)
    arrays = [x - x.mean(0) for x in samples.double().numpy()]
    for i, x in enumerate(arrays):
        for j, y in enumerate(arrays):
            norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
            expected = np.linalg.norm(y.T @ x) ** 2 / norms
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-9)
    constant = torch.cat((samples, torch.ones(1, 7, 3)))
    assert linear_cka(constant)[4].tolist() == [0, 0, 0, 0, 1]


def test_frozen_value() -> None:
    s, t = (torch.sin(1.7 * torch.arange(12).double() + p).view(4, 3) for p in (0.0, 1.0))
    means = torch.cos(torch.arange(9).double()).view(3, 3)
    found = float(ND(class_means=means)(s, t, torch.arange(4) % 3))
    assert found == pytest.approx(0.9720062971726855, rel=1e-9)


def test_refusals() -> None:
    embedding, targets = torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"in Python pass it, ND\(class_means=means\)"):
        ND()(embedding, embedding, targets)
    with pytest.raises(ConfigError, match=r"must be \[classes, 3\]"):
        ND(class_means=torch.ones(2, 4))(embedding, embedding, targets)
    with pytest.raises(ConfigError, match=r"dropout"):
        NormAndDirection(dropout=1.0)
