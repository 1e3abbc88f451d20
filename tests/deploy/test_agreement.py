"""When an exported file is kept, and what is said when it is not."""

import pytest
import torch

from kdrun.deploy.agreement import (
    ExportError,
    compare,
    require_accurate,
    require_equal,
    require_same_answers,
)

TARGETS = torch.tensor([0, 1, 2, 0])
LOGITS = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0], [0, 9.0, 0]])


def test_counts_by_hand() -> None:
    other = LOGITS.clone()
    other[2] = torch.tensor([9.5, 0.0, 0.0])  # now wrong
    found = compare(LOGITS, other, TARGETS)
    assert (found.images, found.agreement, found.max_difference) == (4, 75.0, 9.5)
    assert (found.original.errors, found.exported.errors) == (1, 2)
    assert found.largest_logit == 9.0


def test_the_order_of_sums_is_tolerated_and_no_more() -> None:
    require_equal(compare(LOGITS, LOGITS + 8e-3, TARGETS), "x")
    with pytest.raises(ExportError, match=r"differ by up to 0.01 \(allowed: 0.009\), 100.00 %"):
        require_equal(compare(LOGITS, LOGITS + 1e-2, TARGETS), "x")


def test_a_quantised_file_has_the_same_answers_and_nearly_the_same_logits() -> None:
    other = LOGITS.clone()
    other[0, 0] = 9.5  # a step in one image
    require_same_answers(compare(LOGITS, other, TARGETS), "x.int8.onnx")
    with pytest.raises(ExportError, match=r"100.00 % of the .* typically differ by 0.27 .*format"):
        require_same_answers(compare(LOGITS, 1.03 * LOGITS, TARGETS), "x.int8.onnx")
    with pytest.raises(ExportError, match=r"at most by 9.* has been removed\.$"):
        require_same_answers(compare(LOGITS, LOGITS.flip(1), TARGETS), "x.pt2")


def test_lost_accuracy_is_weighed_against_the_tolerance() -> None:
    other = LOGITS.clone()
    other[0] = torch.tensor([0.0, 1.0, 0.0])
    found = compare(LOGITS, other, TARGETS)
    require_accurate(found, 25.0, "x.int8.onnx")
    with pytest.raises(ExportError, match=r"loses 25.00 points .*50.00 % instead of 75.00 %"):
        require_accurate(found, 24.9, "x.int8.onnx")


def test_the_tolerance_that_is_offered_is_enough() -> None:
    targets = torch.zeros(359, dtype=torch.int64)
    original = torch.tensor([[1.0, 0.0]]).repeat(359, 1)
    exported = original.clone()
    exported[:31] = torch.tensor([0.0, 1.0])  # 8.635 points
    found = compare(original, exported, targets)
    with pytest.raises(ExportError, match=r"tolerance=8.7\.") as refused:
        require_accurate(found, 2.0, "x.int8.onnx")
    offered = float(str(refused.value).rstrip(".").rpartition("=")[2])
    require_accurate(found, offered, "x.int8.onnx")


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ExportError, match="not finite"):
        compare(LOGITS, LOGITS * float("nan"), TARGETS)
