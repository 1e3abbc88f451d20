"""Quantised networks: the integer form equals evaluation; ranges freeze; layers that cannot be."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from kdrun.deploy.integer_form import IntegerForm, integer_form
from kdrun.errors import ConfigError
from kdrun.models.quantisation.quantise import quantise, quantisers_of


class Small(nn.Module):
    """Convolution, BatchNorm, depthwise convolution, residual sum, SE-like product, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.bn(self.conv(images)).relu()
        branch = self.depthwise(hidden)
        branch += hidden
        hidden = branch.clamp_(min=-0.5)
        hidden = hidden * hidden.mean((2, 3), keepdim=True).sigmoid()
        return self.fc(hidden.mean((2, 3)))


def trained() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network, images = Small(), torch.randn(16, 1, 6, 6)
    quantise(network, "int8", images[:2])
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(images).square().sum().backward()
        optimizer.step()
    return network, images


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("count", [1, 7])
def test_integer_form_equals_the_evaluated_network(count: int, mode: Any) -> None:
    network, images = trained()
    network.eval()
    form = integer_form(network, images[:2], IntegerForm)
    with torch.no_grad():
        expected = network(images[:count])
    with mode():
        assert torch.equal(form(images[:count]), expected)
        assert torch.equal(network(images[:count]), expected)
    assert not torch.equal(copy_in_full_precision(network)(images[:count]), expected)


def copy_in_full_precision(network: nn.Module) -> nn.Module:
    plain = copy.deepcopy(network)
    quantisers = quantisers_of(plain)
    assert quantisers is not None
    quantisers.is_active = False
    return plain


@pytest.mark.parametrize(
    ("done", "moving"),
    [(0.8, {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}), (0.9, set())],
)
def test_ranges_freeze_before_statistics(done: float, moving: set[str]) -> None:
    network, images = trained()
    quantisers = quantisers_of(network)
    assert quantisers is not None
    quantisers.done = done
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(10 * images)
    after = network.state_dict()
    assert {name for name, value in before.items() if not torch.equal(value, after[name])} == moving


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no convolution or linear layer"):
        quantise(nn.Flatten(), "int8", torch.zeros(2, 1, 2, 2))
