"""Multi-level logits: images, batch and classes; two views, several temperatures."""

import pytest
import torch
from losses.cases import make_case, make_objective
from losses.logit_cases import (
    assert_golden,
    batch_of,
    divergence,
    gradient,
    random_logits,
    softmax,
    z_scores,
)
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.mlkd import MultiLevelLogits
from kdrun.types import Outputs


def pairs(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """All scalar products of rows."""
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def level(p: list[list[Tensor]], q: list[list[Tensor]], counts: list[float]) -> Tensor:
    """Squared differences of the products, rows weighted, over the number of rows."""
    rows = zip(pairs(p), pairs(q), counts, strict=True)
    return sum(w * sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b, w in rows) / len(
        p
    )


def columns(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    return [list(column) for column in zip(*rows, strict=True)]


def reference(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    targets: Tensor,
    variant: str,
    standardised: bool,
) -> Tensor:
    n, classes = student[0].shape
    sure = [max(softmax(row)) for row in teacher[0]]
    each = [sum(softmax(row)[c] for row in teacher[0]) for c in range(classes)]
    images, kinds = weights_of(sure, variant), weights_of(each, variant)
    total = -sum(softmax(row)[y].log() for row, y in zip(student[1], targets, strict=True)) / n / 9
    change = z_scores if standardised else (lambda row: row)
    for t in (2.0, 5.0):
        for view in (0, 1):
            read = 0 if variant == "code" and t in (2.0, 6.0) else view
            for s, q, w in zip(student[read], teacher[read], images, strict=True):
                kl = divergence(softmax(change(q), t), softmax(change(s), t))
                total = total + (1.0 if view else w) * t**2 * kl / n
            if view == 0 or variant == "paper":
                p = [softmax(row, t) for row in student[view]]
                q = [softmax(row, t) for row in teacher[view]]
                total = total + level(p, q, images) + level(columns(p), columns(q), kinds)
    return total


def weights_of(values: list[Tensor], variant: str) -> list[float]:
    """How much each image or class counts."""
    below = [float(value <= median(values)) for value in values]
    if variant == "masked":
        return below
    if variant == "code":
        return [sum(below) / len(below)] * len(below)
    return [0.5 if variant == "halved" else 1.0 for _ in values]


def median(values: list[Tensor]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(float(v) for v in values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@pytest.mark.parametrize("shape", [(6, 10), (3, 12), (5, 2), (1, 4)])
@pytest.mark.parametrize("variant", list(MultiLevelLogits.variants))
@pytest.mark.parametrize("standardised", [False, True])
def test_it_equals_the_sum_written_out(
    shape: tuple[int, int], variant: str, standardised: bool
) -> None:
    if standardised and shape[1] == 2:
        pytest.skip("two classes: all z-scores are alike")
    weak, weak_t, targets = random_logits(shape)
    strong, strong_t, _ = random_logits(shape, seed=1)
    one = [z.clone().requires_grad_() for z in (weak, strong)]
    two = [z.clone().requires_grad_() for z in (weak, strong)]
    term = MultiLevelLogits((2.0, 5.0), 1 / 9, standardised, variant)
    found = term(
        Outputs(one[0], strong=Outputs(one[1])),
        Outputs(weak_t, strong=Outputs(strong_t)),
        batch_of(targets),
    )
    expected = reference((two[0], two[1]), (weak_t, strong_t), targets, variant, standardised)
    torch.testing.assert_close(found, expected)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(gradient(found, a), gradient(expected, b))


def test_frozen_numbers() -> None:
    assert_golden(MultiLevelLogits(), 34.62941)
    assert_golden(MultiLevelLogits(variant="code"), 34.19293)
    assert_golden(MultiLevelLogits(variant="masked"), 33.11953)
    assert_golden(MultiLevelLogits(variant="paper"), 45.79192)


def test_the_code_counts_odd_numbers_more() -> None:
    """3 of 5 images and 4 of 7 classes lie up to the median; of even numbers half do."""
    for shape, expected in (((5, 7), (3 / 5, 4 / 7)), ((4, 6), (0.5, 0.5))):
        _, teacher, _ = random_logits(shape)
        images, classes = MultiLevelLogits(variant="code")._counted(teacher)
        assert [float(images[0]), float(classes[0])] == pytest.approx(expected)


def test_the_strong_view_is_asked_for() -> None:
    objective = make_objective("mlkd")
    assert objective.reads_strong_view
    assert objective.describe() == "0.1*CE + 0.9*MLKD(T=2+3+4+5+6)"


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="temperatures=\\[\\] must be numbers above 0"):
        MultiLevelLogits([])
    with pytest.raises(ConfigError, match="temperatures"):
        MultiLevelLogits([2.0, 0.0])
    with pytest.raises(ConfigError, match="variant=half"):
        MultiLevelLogits(variant="half")


def test_without_ce_of_the_strong_view_it_reads_no_labels() -> None:
    assert make_case("mlkd").term.reads_labels
    case = make_case("mlkd", strong_ce=0.0)
    assert not case.term.reads_labels
    case.batch.targets.fill_(-1)
    assert torch.isfinite(case.loss())
