"""The shift of left-out classes, against bisection and against a count."""

import pytest
import torch

from kdrun.engine.bias import error_curve, matching_shift, shifted
from kdrun.engine.metrics import errors_per_class


def predicted(logits: torch.Tensor, classes: torch.Tensor, shift: float) -> int:
    return int(torch.isin(shifted(logits, classes, shift).argmax(1), classes).sum())


@pytest.mark.parametrize("classes", [[3], [0, 4, 5]])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_classes_are_predicted_as_often_as_wanted(classes: list[int], share: float) -> None:
    logits = 3 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    logits[:, classes] -= 8
    left_out = torch.tensor(classes)
    found = matching_shift(logits, left_out, share)
    assert predicted(logits, left_out, found) == round(200 * share)
    low, high = -50.0, 50.0
    for _ in range(60):  # the count rises with the shift
        middle = (low + high) / 2
        if predicted(logits, left_out, middle) < 200 * share:
            low = middle
        else:
            high = middle
    assert found == pytest.approx(high, abs=1.0)
    between = min(found, high), max(found, high)
    assert predicted(logits, left_out, between[0] + 1e-3) == round(200 * share)
    assert predicted(logits, left_out, between[1]) == round(200 * share)


def test_raising_some_is_lowering_the_others() -> None:
    logits = torch.randn(50, 10)
    kept = torch.tensor([7, 8])
    others = torch.tensor([c for c in range(10) if c not in (7, 8)])
    raised, lowered = shifted(logits, others, 7.6), shifted(logits, kept, -7.6)
    torch.testing.assert_close(raised.softmax(1), lowered.softmax(1))


def test_the_curve_counts_errors_over_the_shifts() -> None:
    logits, targets = torch.randn(80, 4) - 3 * torch.eye(4)[[2] * 80], torch.arange(80) % 4
    curve = error_curve(logits, targets, torch.tensor([2]))
    assert curve["shift"][0] == 0
    assert {3.5, 7.6, 10.0} <= set(curve["shift"])
    for place in (0, 35, 100):
        moved = logits + torch.tensor([0, 0, curve["shift"][place], 0])
        wrong = moved.argmax(1) != targets
        assert curve["errors"][place] == int(wrong.sum())
        assert curve["errors_left_out"][place] == int(wrong[targets == 2].sum())


def test_it_never_wants_none_or_all() -> None:
    logits = torch.randn(20, 3)
    classes = torch.tensor([1])
    assert predicted(logits, classes, matching_shift(logits, classes, 0.0)) == 1
    assert predicted(logits, classes, matching_shift(logits, classes, 1.0)) == 19


def test_errors_are_counted_by_the_true_class() -> None:
    found = errors_per_class(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 2]), "abc")
    assert found == [
        {"class": "a", "images": 2, "errors": 1},
        {"class": "b", "images": 1, "errors": 0},
        {"class": "c", "images": 1, "errors": 1},
    ]
