"""What a loss may not do to the tensors that it is given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss
from kdrun.losses.call import call_loss
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective, WeightedLoss
from kdrun.types import Batch, Outputs


class Own(DistillationLoss):
    id = "own"
    full_name = "a loss of the user's own"

    def __init__(self, change: Callable[[Outputs, Outputs], object]) -> None:
        super().__init__()
        self.change = change

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        self.change(student, teacher)
        return mse_loss(student.logits, teacher.logits)


def outputs(grad: bool = False) -> Outputs:
    logits = torch.randn(4, 3, requires_grad=grad) * 1.0
    return Outputs(logits, {"stage1": torch.randn(4, 2, 5, 5)}, torch.randn(4, 6))


def called(change: Callable[[Outputs, Outputs], object]) -> Tensor:
    labels = torch.arange(4) % 3
    batch = Batch(torch.zeros(4, 1, 2, 2), labels, torch.arange(4))
    return call_loss(Own(change), "own", outputs(grad=True), outputs(), batch)


@pytest.mark.parametrize(
    "change",
    [
        lambda student, teacher: teacher.logits.div_(4),
        lambda student, teacher: student.logits.mul_(2),
        lambda student, teacher: teacher.features["stage1"].relu_(),
        lambda student, teacher: teacher.features["stage1"].flatten(1)[:, 0].zero_(),
        lambda student, teacher: student.embedding.add_(1),
    ],
)
def test_a_loss_does_not_change_what_others_read(
    change: Callable[[Outputs, Outputs], object],
) -> None:
    with pytest.raises(
        ConfigError, match=r"loss\.own: Own changes its logits or features in place"
    ):
        called(change)


def test_copies_may_be_changed() -> None:
    assert called(lambda student, teacher: teacher.logits.clone().div_(4)).requires_grad


def test_outputs_of_inference_mode_are_taken() -> None:
    with torch.inference_mode():
        teacher = outputs()
    student, labels = outputs(grad=True), torch.arange(4) % 3
    batch = Batch(torch.zeros(4, 1, 2, 2), labels, torch.arange(4))
    loss = Own(lambda student, teacher: None)
    with torch.no_grad():
        assert call_loss(loss, "own", student, teacher, batch) > 0


@pytest.mark.parametrize(("weight", "frozen"), [(1, False), (0, False), (1, True)])
def test_a_loss_without_gradient_is_refused_unless_its_weight_is_0(
    weight: float, frozen: bool
) -> None:
    class Detached(Own):
        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
            return mse_loss(student.logits.detach(), teacher.logits)

    objective = Objective(
        CrossEntropy(), 1.0, {"own": WeightedLoss(Detached(lambda student, teacher: None), weight)}
    )
    logits = torch.randn(4, 3, requires_grad=True)
    student = Outputs(logits, {"stage1": torch.randn(4, 2, requires_grad=not frozen)})
    batch = Batch(torch.zeros(4, 1, 2, 2), torch.arange(4) % 3, torch.arange(4))
    if weight and not frozen:
        with pytest.raises(ConfigError, match=r"loss\.own: Detached returned a value without a"):
            objective(student, [outputs()], batch)
    else:
        total, _ = objective(student, [outputs()], batch)
        assert total.requires_grad
