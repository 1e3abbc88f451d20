"""Distillation of singular vectors."""

import numpy as np
import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import exact_case, maps, match_by_hand, total
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.kdsvd import SingularVectors, aligned
from kdrun.losses.singular import _inverse, right_vectors

VARIANTS = ["mdistiller", "repdistiller"]


def matrix(image: Tensor, variant: str) -> Tensor:
    """A map `[C, H, W]` as rows and columns."""
    channels, height, width = image.shape
    if variant == "mdistiller":
        return torch.cat([image[c] for c in range(channels)])
    return torch.stack([image[:, i, j] for i in range(height) for j in range(width)])


def by_hand(case: Case) -> Tensor:
    """Image by image, with the gradient that PyTorch's own decomposition has."""
    k, losses, before = case.term.k, [], None
    for s, t in (match_by_hand(*pair) for pair in maps(case)):
        now = []
        for a, b in zip(s, t, strict=True):
            _, values, rows_t = torch.linalg.svd(matrix(b, case.term.variant), full_matrices=False)
            _, _, rows_s = torch.linalg.svd(matrix(a, case.term.variant), full_matrices=False)
            if case.term.signs == "positive":
                rows_t = torch.stack([row if row.sum() >= 0 else -row for row in rows_t])
            scale = values[:k] / values[:k].square().sum().sqrt()
            chosen = []
            for target in rows_t[:k]:
                best = max(
                    rows_s[: k + 3], key=lambda row, v=target: abs(float((row * v).sum().detach()))
                )
                chosen.append(best * (best * target).sum().detach().sign())
            now.append((torch.stack(chosen) * scale[:, None], rows_t[:k] * scale[:, None]))
        if before is not None:
            for (s_now, t_now), (s_was, t_was) in zip(now, before, strict=True):
                r_s, r_t = (
                    (-((a[:, :, None] - b[:, None, :]) ** 2) / 8).exp()
                    for a, b in ((s_now, s_was), (t_now, t_was))
                )
                losses.append((r_s - r_t).square().sum() / len(now))
        before = now
    return total(losses)


@pytest.mark.parametrize(
    ("pair", "variant", "k", "signs"),
    [
        ("cnn", "mdistiller", 1, "positive"),
        ("cnn", "mdistiller", 2, "lapack"),
        ("mobilenet", "mdistiller", 1, "positive"),
        ("same", "repdistiller", 1, "lapack"),
        ("same", "repdistiller", 2, "positive"),
    ],
)
def test_agrees_with_pytorchs_decomposition(pair: str, variant: str, k: int, signs: str) -> None:
    case = exact_case("kdsvd", pair, variant=variant, k=k, signs=signs)
    found, expected = case.loss(), by_hand(case)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    tensors = list(case.student.features.values())
    gradients = [torch.autograd.grad(value, tensors) for value in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * float(other.abs().max()))


@pytest.mark.parametrize("shape", [(2, 12, 5), (2, 4, 9)])
def test_vectors_are_numpys(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, dtype=torch.float64)
    vectors, values = right_vectors(matrices, 3)
    for image, found, sizes in zip(matrices, vectors, values, strict=True):
        _, expected, rows = np.linalg.svd(image.numpy())
        np.testing.assert_allclose(sizes, expected[:3])
        np.testing.assert_allclose(np.abs(found.numpy().T @ rows[:3].T), np.eye(3), atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 9, 4), (1, 3, 6)])
def test_their_gradient_is_that_of_finite_differences(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def projector(rows: Tensor) -> Tensor:  # has no sign to lose
        vectors, _ = right_vectors(rows, 2)
        return vectors @ vectors.mT

    assert torch.autograd.gradcheck(projector, (matrices,), atol=1e-5, rtol=1e-4)


def test_the_gradient_is_bounded_only_where_values_meet() -> None:
    gaps = torch.tensor([[[1.0, 1e-3, 1e-4, 0.0]]])
    inverse = _inverse(gaps, torch.ones(1, 1))
    assert inverse[0, 0, :2].tolist() == pytest.approx([1.0, 1e3])
    assert 0 < inverse[0, 0, 2] < 1e4
    assert inverse[0, 0, 3] == 0


def test_equal_singular_values_have_a_finite_gradient() -> None:
    matrices = torch.eye(4)[None].requires_grad_()
    vectors, _ = right_vectors(matrices, 2)
    (gradient,) = torch.autograd.grad(vectors.square().sum() + vectors[0, 0, 0], matrices)
    assert torch.isfinite(gradient).all()


def test_signs_of_the_decomposition_do_not_matter() -> None:
    case = make_case("kdsvd")
    expected = case.loss()
    for features in (case.teacher.features, case.student.features):
        for tensor in features.values():
            with torch.no_grad():
                tensor.neg_()  # turns left vectors only
    torch.testing.assert_close(case.loss(), expected)


def test_alignment_takes_the_nearest_by_its_sign() -> None:
    candidates = torch.eye(3)[None]
    target = torch.tensor([[[0.1], [-0.9], [0.2]]])
    assert aligned(candidates, target)[0, :, 0].tolist() == [0.0, -1.0, 0.0]


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("kdsvd", "same", variant=variant).loss()
        assert found.item() == pytest.approx(expected, rel=1e-4)


GOLDEN = {"mdistiller": 0.09268561, "repdistiller": 0.10234209}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"needs equal widths.*variant=mdistiller"):
        make_case("kdsvd", "cnn", variant="repdistiller")
    with pytest.raises(ConfigError, match="name two or more"):
        make_case("kdsvd", "cnn", taps=["last_stage"])
    with pytest.raises(ConfigError, match="at least 1"):
        SingularVectors(k=0)
    with pytest.raises(ConfigError, match="is not one of positive, lapack"):
        SingularVectors(signs="code")
