"""Fused convolutions: the same answers, and nothing overwritten that somebody reads later."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.fold import fold_batchnorm
from kdrun.models.fuse import FusedConvolution, fuse_convolutions
from kdrun.models.mlp import MLP
from kdrun.models.mobilenetv2 import MobileNetV2
from kdrun.models.resnet import ResNet
from kdrun.models.resnetv2 import BottleneckResNet
from kdrun.models.shufflenetv2 import ShuffleNetV2
from kdrun.models.wrn import WideResNet

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (lambda: ResNet(10, depth=14, widths=[4, 4, 8, 8]), 15),
    "pre-activation": (lambda: WideResNet(10, depth=16, widen_factor=1), 15),
    "bottlenecks": (lambda: BottleneckResNet(10, blocks=[1, 1, 1, 1]), 17),
    "depthwise": (lambda: MobileNetV2(10, width=0.25, expansion=2), 53),
    "shuffled": (lambda: ShuffleNetV2(10, widths=[24, 48, 96, 64], blocks=[1, 1, 1]), 26),
}


def images(count: int = 4, size: int = 16) -> Tensor:
    stream = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=stream)


def frozen(network: nn.Module) -> nn.Module:
    """With statistics of some images, folded, in eval mode."""
    torch.manual_seed(0)
    network.train()
    with torch.no_grad():
        network(images(8, 32))
    network.requires_grad_(False).eval()
    fold_batchnorm(network, images(2, 32))
    return network


def how_many(network: nn.Module) -> int:
    return sum(isinstance(module, FusedConvolution) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_it_answers_alike(name: str, layout: torch.memory_format) -> None:
    make, count = NETWORKS[name]
    plain = frozen(make()).to(memory_format=layout)  # type: ignore[call-overload]
    before = copy.deepcopy(plain.state_dict())
    fused, found = fuse_convolutions(plain, images(2, 32))
    assert found == how_many(fused) == count
    assert how_many(plain) == 0
    for batch in (images(4, 32), images(7, 32)):  # also of other sizes than it was made ready for
        batch = batch.to(memory_format=layout)
        torch.testing.assert_close(fused(batch), plain(batch), rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(fused(batch), fused(batch), rtol=0, atol=0)
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("name", ["resnet", "pre-activation"])
def test_in_bf16(name: str) -> None:
    make, count = NETWORKS[name]
    plain = frozen(make())
    expected = plain(images(4, 32))
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    fused, found = fuse_convolutions(plain, images(2, 32), dtype=torch.bfloat16)
    assert found == count
    with torch.autocast("cpu", torch.bfloat16):
        got = fused(images(4, 32))
    assert got.dtype == torch.bfloat16
    assert (got - expected).abs().max() < 0.03 * expected.abs().max()


def test_taps_see_what_they_saw() -> None:
    plain = frozen(ResNet(10, depth=14, widths=[4, 4, 8, 8]))
    places = ("relu", "layer1.0.bn1", "layer1.1.conv2", "layer2.1.relu2:in", "fc:in")
    for names in (places, *((place,) for place in places)):
        extractor = FeatureExtractor(copy.deepcopy(plain), names)
        expected = extractor(images())
        extractor.network, found = fuse_convolutions(extractor.network, images(2), extractor.places)
        extractor.reattach()
        assert 0 < found == how_many(extractor.network)
        got = extractor(images())
        for name in names:
            torch.testing.assert_close(got.features[name], expected.features[name])
        torch.testing.assert_close(got.logits, expected.logits)


def test_a_tap_of_a_module_made_of_others_keeps_the_network() -> None:
    plain = frozen(ResNet(10, depth=8, widths=[4, 4, 8, 8]))
    assert fuse_convolutions(plain, images(2), ["layer1"]) == (plain, 0)


class Sums(nn.Module):
    """Sums that a fused convolution must not write over, or not take at all."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.activation = nn.ReLU()

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.first(pixels)
        if self.kind == "read later":
            return (F.relu(self.second(hidden) + hidden) + hidden).mean((2, 3))
        if self.kind == "what it takes":
            return F.relu(self.second(hidden) + hidden).mean((2, 3))
        if self.kind == "a view is read later":
            view = hidden.flatten(2)
            return torch.relu(hidden + self.second(hidden)).mean((2, 3)) + view.mean(2)
        if self.kind == "two convolutions":
            return (self.second(hidden) + self.second(self.activation(hidden))).relu().mean((2, 3))
        if self.kind == "used twice":
            last = self.second(hidden)
            return (self.activation(last) + last).mean((2, 3))
        if self.kind == "the images":
            return (self.first(pixels)[:, :3] + pixels).mean((2, 3))
        if self.kind == "added to itself":
            last = self.second(hidden)
            return (last + last).mean((2, 3))
        return (self.second(hidden) + hidden.mean((2, 3), keepdim=True)).mean((2, 3))


KINDS = [
    "read later",
    "what it takes",
    "a view is read later",
    "two convolutions",
    "used twice",
    "the images",
    "added to itself",
    "another shape",
]


@pytest.mark.parametrize("kind", KINDS)
def test_sums(kind: str) -> None:
    torch.manual_seed(0)
    plain = Sums(kind).requires_grad_(False).eval()
    fused, found = fuse_convolutions(plain, images(2))
    assert found > 0
    batch = images()
    kept = batch.clone()
    torch.testing.assert_close(fused(batch), plain(batch))
    assert torch.equal(batch, kept)


class Depends(nn.Module):
    """Takes another way for dark images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.conv(pixels).mean((2, 3))
        return logits if pixels.mean() > 0 else -logits


@pytest.mark.parametrize("network", [Depends(), MLP(10, 3, image_size=(16, 16), hidden=[8])])
def test_others_stay_as_they_are(network: nn.Module) -> None:
    network = network.requires_grad_(False).eval()
    assert fuse_convolutions(network, images(2)) == (network, 0)


def test_a_network_that_answers_otherwise_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = frozen(ResNet(10, depth=8, widths=[4, 4, 8, 8]))
    right = FusedConvolution.forward
    monkeypatch.setattr(FusedConvolution, "forward", lambda *args: right(*args) + 1)
    assert fuse_convolutions(plain, images(2)) == (plain, 0)
