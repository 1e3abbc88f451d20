"""A loss must return a scalar tensor."""

from typing import Any

import pytest
import torch
from losses.logit_cases import batch_of
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective, WeightedLoss
from kdrun.types import Batch, Outputs


class Mine(DistillationLoss):
    """Returns what it is told to."""

    id = "mine"
    full_name = "Mine"

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        value: Tensor = self.value
        return value


def loss_of(value: Any) -> Tensor:
    objective = Objective(CrossEntropy(), 1.0, {"mine": WeightedLoss(Mine(value), 2.0)})
    outputs = Outputs(torch.zeros(4, 3))
    total, _ = objective(outputs, [outputs], batch_of(torch.tensor([0, 1, 2, 0])))
    return total


def test_a_scalar_is_added() -> None:
    assert loss_of(torch.tensor(3.0)) == pytest.approx(6 + torch.log(torch.tensor(3.0)).item())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(4), r"a tensor of shape \[4\]"),
        (torch.zeros(1), r"a tensor of shape \[1\]"),
        (3.0, "a float"),
        (None, "a NoneType"),
        ((torch.tensor(1.0), {}), "a tuple"),
    ],
)
def test_anything_else_is_refused_by_name(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.mine: Mine returned {words}: return .*mean"):
        loss_of(value)
