"""Folding: equal answers, and nothing folded that somebody else looks at."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.models import fold
from kdrun.models.fold import fold_batchnorm
from kdrun.models.resnet import ResNet
from kdrun.models.wrn import WideResNet


def trained(network: nn.Module) -> nn.Module:
    """With running statistics and weights that are not the initial ones, frozen."""
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=stream))
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=stream) * 0.1)
    return network.requires_grad_(False).eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("network", "count", "left"),
    [
        (ResNet(10, depth=8, widths=[4, 4, 8, 8]), 9, 0),
        # of a pre-activation block only the second normalisation follows a convolution at once
        (WideResNet(10, depth=10, widen_factor=1), 3, 4),
    ],
    ids=["resnet", "pre-activation"],
)
def test_a_folded_network_answers_alike(network: nn.Module, count: int, left: int) -> None:
    plain = trained(network)
    folded = copy.deepcopy(plain)
    assert fold_batchnorm(folded, images(2)) == count
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == left
    expected, found = plain(images()), folded(images())
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not any(p.requires_grad for p in folded.parameters())


def test_taps_see_what_they_saw() -> None:
    plain = trained(ResNet(10, depth=8, widths=[4, 4, 8, 8]))
    for taps, count in ((["conv1"], 8), (["bn1:in"], 8), (["bn1"], 9), (["layer1.0"], 9)):
        folded = copy.deepcopy(plain)
        assert fold_batchnorm(folded, images(2), taps) == count, taps


class Both(nn.Module):
    """A convolution whose output goes to its normalisation and, in some way, elsewhere."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x)
        normed = self.norm(found)
        if self.how == "added":
            normed = normed + found
        elif self.how == "viewed":
            normed = normed + found.mean((2, 3), keepdim=True)
        elif self.how == "twice":
            normed = normed + self.norm(self.conv(x * 2))
        elif self.how == "changed first":
            normed = self.norm(F.relu_(found))
        elif self.how == "between":
            normed = self.norm(F.relu(found))
        return normed.mean((2, 3))


@pytest.mark.parametrize("how", ["added", "viewed", "twice", "changed first", "between"])
def test_a_tensor_with_other_uses_is_left_alone(how: str) -> None:
    network = trained(Both(how))
    assert fold_batchnorm(network, images(2)) == 0
    assert fold_batchnorm(trained(Both("only")), images(2)) == 1


def test_subclasses_and_shared_weights_are_left_alone() -> None:
    class Doubling(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network = Both("only")
    network.conv = Doubling(3, 4, 3)
    assert fold_batchnorm(trained(network), images(2)) == 0
    shared = Both("only")
    shared.other = nn.Conv2d(3, 4, 3)  # type: ignore[assignment]
    shared.other.weight = shared.conv.weight
    assert fold_batchnorm(trained(shared), images(2)) == 0


def test_a_network_that_would_answer_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
        return nn.Conv2d(3, 4, 3)

    monkeypatch.setattr(fold, "fuse_conv_bn_eval", wrong)
    with pytest.raises(ConfigError, match=r"teacher\.fold=false"):
        fold_batchnorm(trained(Both("only")), images(2))
