"""Streamlined distillation: Gram matrices of logits under a Mahalanobis norm."""

import numpy as np
import pytest
import torch
from losses.logit_cases import assert_golden, batch_of, divergence, random_logits, softmax

from kdrun.losses.skd import Streamlined, mahalanobis_norm
from kdrun.types import Outputs


def relation(student: np.ndarray, teacher: np.ndarray, ridge: float, scale: float) -> float:
    """mean_i sqrt(d_iᵀ (cov + ridge I)⁻¹ d_i), with NumPy's covariance and inverse."""
    s, t = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (student, teacher))
    d = (s @ s.T - t @ t.T) * scale
    inverse = np.linalg.inv(np.cov(d.T) + ridge * np.eye(len(d)))
    return float(np.mean([np.sqrt(row @ inverse @ row) for row in d]))


@pytest.mark.parametrize("shape", [(6, 10), (5, 3), (9, 100)])
@pytest.mark.parametrize("variant", ["code", "plain"])
def test_equal_to_numpy(shape: tuple[int, int], variant: str) -> None:
    student, teacher, targets = random_logits(shape)
    kl = float(
        sum(
            divergence(softmax(t, 4.0), softmax(s, 4.0))
            for s, t in zip(student, teacher, strict=True)
        )
        / shape[0]
    )
    if variant == "plain":
        expected = kl + relation(student.numpy(), teacher.numpy(), 0.1, 1.0)
    else:
        p = torch.softmax(teacher, dim=1).numpy()
        images = np.mean(p.max(axis=1) <= np.percentile(p.max(axis=1), 50))
        classes = np.mean(p.sum(axis=0) <= np.percentile(p.sum(axis=0), 50))
        gram = relation(student.numpy(), teacher.numpy(), 0.1, 1 / shape[1])
        expected = 16 * kl * images + gram * classes
    found = Streamlined(variant=variant)(Outputs(student), Outputs(teacher), batch_of(targets))
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_equal_rows_have_no_distance_and_no_gradient() -> None:
    rows = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    value = mahalanobis_norm(rows, 0.1)
    (gradient,) = torch.autograd.grad(value, rows)
    assert float(value.detach()) == 0.0
    assert not gradient.any()


def test_a_large_ridge_leaves_the_euclidean_norm() -> None:
    rows = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    expected = rows.norm(dim=1).mean() / 1e4
    torch.testing.assert_close(mahalanobis_norm(rows, 1e8), expected, rtol=1e-6, atol=0)


def test_frozen_values() -> None:
    assert_golden(Streamlined(), 2.37666)
    assert_golden(Streamlined(variant="plain"), 1.096799)
