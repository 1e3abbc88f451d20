"""Metrics against hand-made cases and plain loops."""

import math

import pytest
import torch
from torch import nn

from kdrun.data.groups import GroupError
from kdrun.engine.metrics import (
    EpochSums,
    calibration_error,
    evaluate,
    measure,
)
from kdrun.types import Batch, StepOutput


def test_counts_of_a_case_made_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    found = measure(logits, torch.tensor([0, 2, 2, 1]))
    assert found.errors == 2
    assert found.top1 == 50.0
    assert found.top5 == 100.0  # three classes are all within five


def test_top5_by_sorting() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 20, generator=generator)
    targets = torch.randint(20, (200,), generator=generator)
    ranked = logits.sort(dim=1, descending=True).indices[:, :5].tolist()
    hits = sum(t in row for t, row in zip(targets.tolist(), ranked, strict=True))
    assert measure(logits, targets).top5 == pytest.approx(100 * hits / 200)


def test_loss_is_the_mean_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    found = measure(logits, torch.tensor([0, 0]))
    assert found.loss == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_calibration_error_by_bins() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(500, 4, generator=generator)
    targets = torch.randint(4, (500,), generator=generator)
    confidence, answer = logits.double().softmax(1).max(1)
    expected = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            accuracy = (answer[inside] == targets[inside]).double().mean()
            expected += float(inside.sum()) / 500 * abs(float(accuracy - confidence[inside].mean()))
    assert calibration_error(logits, targets) == pytest.approx(100 * expected)


def test_certain_and_right_is_calibrated() -> None:
    assert calibration_error(torch.eye(3) * 1e4, torch.arange(3)) == pytest.approx(0.0)


def test_evaluate_uses_eval_mode_and_puts_the_mode_back() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 2)).train()
    images = torch.randn(10, 1, 2, 2)
    batches = [Batch(images, torch.zeros(10, dtype=torch.long), torch.arange(10))]
    first = evaluate(network, batches, torch.device("cpu"), "fp32")
    second = evaluate(network, batches, torch.device("cpu"), "fp32")
    assert first.metrics == second.metrics
    assert network.training


def test_sums_saved_and_taken_up_again_are_the_same() -> None:
    generator = torch.Generator().manual_seed(2)

    def outputs() -> list[tuple[StepOutput, Batch]]:
        found = []
        for size in (3, 5, 2, 7):
            logits = torch.randn(size, 4, generator=generator)
            batch = Batch(
                logits, torch.randint(4, (size,), generator=generator), torch.arange(size)
            )
            found.append((StepOutput(logits.sum(), logits, {"kd": logits.mean()}), batch))
        return found

    steps = outputs()
    whole = EpochSums(torch.device("cpu"))
    for output, batch in steps:
        whole.add(output, batch)
    half = EpochSums(torch.device("cpu"))
    for output, batch in steps[:2]:
        half.add(output, batch)
    rest = EpochSums(torch.device("cpu"), half.totals())
    for output, batch in steps[2:]:
        rest.add(output, batch)
    assert rest.totals() == whole.totals()
    assert set(whole.totals()) == {"loss", "correct", "part/kd"}


def test_extra_metrics_are_named_by_split() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    batches = [Batch(torch.randn(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), torch.arange(4))]
    device, extra = torch.device("cpu"), (GroupError("word", torch.tensor([0, 0, 1, 1])),)
    assert set(evaluate(network, batches, device, "fp32").to_dict()) == {"test"}
    found = evaluate(network, batches, device, "fp32", extra).to_dict("val")
    assert set(found) == {"val", "val_words"}
    assert found["val_words"]["words"] == 2


def test_equal_logits_are_answered_by_the_first_everywhere() -> None:
    logits = torch.zeros(50, 20)
    logits[:, 5:9] = 1.0
    found = measure(logits, logits.argmax(dim=1))
    assert (found.errors, found.top1, found.top5) == (0, 100.0, 100.0)
    assert measure(logits, torch.full((50,), 6)).errors == 50
