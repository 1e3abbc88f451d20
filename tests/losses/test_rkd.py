"""Relational knowledge distillation."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, total
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.rkd import RelationalDistillation, angles, centred_gram, distances


def huber(a: Tensor, b: Tensor) -> Tensor:
    gap = (a - b).abs()
    return gap * gap / 2 if gap < 1 else gap - 0.5


def length(vector: Tensor) -> Tensor:
    return vector.square().sum().sqrt()


def relations(embeddings: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """(distances of all pairs over their mean, cosines of all triplets)."""
    count, zero = len(embeddings), torch.zeros((), dtype=embeddings.dtype)
    gaps = [[embeddings[j] - embeddings[i] for j in range(count)] for i in range(count)]
    far = [length(gaps[i][j]) if i != j else zero for i in range(count) for j in range(count)]
    mean = total(far) / (count * (count - 1))
    cosines = []
    for i in range(count):
        for j in range(count):
            for k in range(count):
                a, b = gaps[i][j], gaps[i][k]
                known = i not in (j, k)
                cosines.append((a * b).sum() / (length(a) * length(b)) if known else zero)
    return [d / mean for d in far], cosines


def by_hand(case: Case) -> Tensor:
    term = case.term
    pair = [case.student.embedding, case.teacher.embedding]
    if term.normalise:
        pair = [torch.stack([row / length(row) for row in e]) for e in pair]
    (far_s, cos_s), (far_t, cos_t) = (relations(e) for e in pair)
    parts = []
    for weight, ours, theirs in ((term.distance, far_s, far_t), (term.angle, cos_s, cos_t)):
        values = [huber(a, b) for a, b in zip(ours, theirs, strict=True)]
        parts.append(weight * total(values) / len(values))
    return total(parts)


@pytest.mark.parametrize("pair", ["cnn", "mobilenet", "mlp"])
@pytest.mark.parametrize("settings", [{}, {"angle": 0.0}, {"distance": 0.0}, {"normalise": True}])
def test_agrees_with_loops(pair: str, settings: dict[str, object]) -> None:
    case = exact_case("rkd", pair, batch=4, **settings)
    assert_same(case, lambda: by_hand(case))


def test_a_shift_a_scale_and_a_rotation_change_nothing() -> None:
    case = make_case("rkd", "same")
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    case.teacher.embedding.copy_(3.0 * case.student.embedding.detach() @ rotation + 5.0)
    assert case.loss().item() == pytest.approx(0.0, abs=1e-6)


def test_a_common_offset_costs_no_precision() -> None:
    embeddings = torch.rand(16, 12)
    near, far = (centred_gram(embeddings + shift) for shift in (0.0, 100.0))
    torch.testing.assert_close(distances(far), distances(near), rtol=1e-3, atol=1e-4)
    cosines = angles(far, distances(far)), angles(near, distances(near))
    torch.testing.assert_close(*cosines, rtol=1e-2, atol=1e-3)


def test_the_same_image_twice_is_at_distance_zero() -> None:
    case = exact_case("rkd", batch=4)
    with torch.no_grad():
        case.student.embedding[1] = case.student.embedding[0]
    far = distances(centred_gram(case.student.embedding))
    assert far[0, 1] == far[1, 0] == 0
    (gradient,) = torch.autograd.grad(case.loss(), case.student.embedding)
    assert torch.isfinite(gradient).all()


def test_golden() -> None:
    for settings, expected in GOLDEN:
        found = make_case("rkd", "mobilenet", **settings).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN: list[tuple[dict[str, bool], float]] = [({}, 0.71604115), ({"normalise": True}, 0.31208605)]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="must be at least 0"):
        RelationalDistillation(angle=-1.0)
