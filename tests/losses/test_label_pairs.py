"""Mixed images have two labels: what each loss makes of them, and which are refused."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from losses.cases import FILES, Case, make_case, make_term
from losses.checks import REGISTRY
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective, WeightedLoss, require_label_pairs
from kdrun.types import Batch, Mixture, Outputs

READERS = [name for name in sorted(FILES) if make_term(name).loss.reads_labels]
SHARE = torch.tensor([0.3, 1.0, 0.0, 0.9, 0.5, 0.62])


def timm_module(path: str) -> ModuleType:
    """A file of timm by itself: importing the package takes seconds."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        pytest.skip("timm is not installed")
    spec = importlib.util.spec_from_file_location("timm_file", Path(found.origin).parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mixed(batch: Batch, share: Tensor) -> Batch:
    """The batch with the labels of the images in reverse order as second labels, as in timm."""
    return replace(batch, mixture=Mixture(batch.targets.flip(0), share))


def value(case: Case, batch: Batch) -> Tensor:
    torch.manual_seed(0)
    return case.term(case.student, case.teacher, batch)


@pytest.mark.parametrize("loss", READERS)  # others: test_every_loss.py
def test_a_loss_is_linear_in_the_two_labels_or_refused(loss: str) -> None:
    case = make_case(loss, **REGISTRY[loss].settings)
    plain, second = case.batch, replace(case.batch, targets=case.batch.targets.flip(0))
    if case.term.mixing_refusal() is not None:
        with pytest.raises(ConfigError, match=rf"loss={loss} .*mixed image.*: "):
            require_label_pairs(Objective(CrossEntropy(), 1.0, {loss: WeightedLoss(case.term, 1)}))
        return
    first, other = value(case, plain), value(case, second)
    for share in (0.0, 0.3, 1.0):
        found = value(case, mixed(plain, torch.full((6,), share)))
        torch.testing.assert_close(found, share * first + (1 - share) * other)
    chosen = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    targets = torch.where(chosen.bool(), plain.targets, second.targets)
    expected = value(case, replace(plain, targets=targets))
    torch.testing.assert_close(value(case, mixed(plain, chosen)), expected)
    assert case.term.label_pairs, "state in `label_pairs` what happens"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_is_that_of_timm_with_its_mixed_targets(smoothing: float) -> None:
    targets, logits = torch.tensor([2, 0, 4, 4, 1, 3]), torch.randn(6, 5)
    soft = timm_module("data/mixup.py").mixup_target(targets, 5, SHARE[:, None], smoothing)
    expected = timm_module("loss/cross_entropy.py").SoftTargetCrossEntropy()(logits, soft)
    batch = mixed(Batch(logits[:, :0], targets, torch.arange(6)), SHARE)
    found = CrossEntropy(smoothing)(Outputs(logits), Outputs(logits), batch)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize(
    ("smoothing", "threshold", "sums"),
    [(0.0, None, False), (0.1, None, True), (0.0, 0.2, False), (0.1, 0.2, True)],
)
def test_bce_is_that_of_timm(
    smoothing: float, threshold: float | None, sums: bool, mixes: bool
) -> None:
    targets, logits = torch.tensor([2, 0, 4, 4, 1, 3]), torch.randn(6, 5)
    batch = Batch(logits[:, :0], targets, torch.arange(6))
    theirs = timm_module("loss/binary_cross_entropy.py").BinaryCrossEntropy(
        smoothing, threshold, sum_classes=sums
    )
    wanted = targets
    if mixes:
        batch = mixed(batch, SHARE)
        wanted = timm_module("data/mixup.py").mixup_target(targets, 5, SHARE[:, None], smoothing)
    ours = CrossEntropy(smoothing, "bce", threshold, sums)
    found = ours(Outputs(logits), Outputs(logits), batch)
    torch.testing.assert_close(found, theirs(logits, wanted))


class Written(DistillationLoss):
    """A user's loss."""

    id = "written"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return student.logits.mean()


@pytest.mark.parametrize(
    ("attributes", "refused"),
    [
        ({}, None),
        ({"reads_labels": True}, "reads one label per image"),
        ({"reads_labels": True, "label_pairs": "their mean"}, None),
        ({"forward": lambda self, s, t, batch: (batch.targets * 1.0).mean()}, "reads one label"),
        ({"reads_indices": True}, "stores something for each training image"),
    ],
)
def test_a_users_loss_is_refused_by_what_it_reads(
    attributes: dict[str, Any], refused: str | None
) -> None:
    loss = type("Mine", (Written,), attributes)()
    objective = Objective(CrossEntropy(), 1.0, {"written": WeightedLoss(loss, 1.0)})
    if refused is None:
        require_label_pairs(objective)
        return
    with pytest.raises(ConfigError, match=f"loss=written {refused}") as caught:
        require_label_pairs(objective)
    assert str(caught.value).count(". ") == 0


def test_the_dominant_label_is_the_one_with_the_larger_share() -> None:
    batch = Batch(torch.zeros(6, 1), torch.arange(6), torch.arange(6))
    assert torch.equal(batch.dominant_targets, batch.targets)
    assert mixed(batch, SHARE).dominant_targets.tolist() == [5, 1, 3, 3, 4, 5]
