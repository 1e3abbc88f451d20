"""Cutting networks at a tap: the same answers, the trunk computed once, and its gradient whole."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.models.build import build_network
from kdrun.models.features.taps import tap_paths
from kdrun.models.split import (
    Branch,
    Recording,
    Replay,
    check_branch,
    find_cut,
    make_branch,
)
from kdrun.types import InputInfo

INFO = InputInfo(num_classes=5, in_channels=3, image_size=(16, 16))
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet": ("cnn.ConvNet", {"widths": [3, 4, 5]}),
    "resnet": ("resnet.ResNet", {"depth": 8, "widths": [4, 4, 6, 8]}),
    "wrn": ("wrn.WideResNet", {"depth": 10, "widen_factor": 1, "dropout": 0.3}),
    "vgg": ("vgg.VGG", {"widths": [[3], [4], [4], [5], [6]]}),
    "mlp": ("mlp.MLP", {"hidden": [6, 7], "dropout": 0.2}),
    "mobilenet": ("mobilenetv2.MobileNetV2", {"width": 0.1}),
    "shufflenet": ("shufflenetv2.ShuffleNetV2", {"widths": [4, 8, 8, 8], "blocks": [1, 1, 1]}),
}


def made(name: str, seed: int = 0) -> nn.Module:
    target, kwargs = NETWORKS[name]
    torch.manual_seed(seed)
    config = NetworkConfig(name, f"kdrun.models.{target}", kwargs)
    return build_network(config, INFO).double()


def images(count: int = 4) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 16, 16, generator=draw, dtype=torch.float64)


def split(network: nn.Module, twin: nn.Module, tap: str) -> tuple[Recording, Branch]:
    recording = Recording(network, find_cut(network, images(), tap, tap_paths(network)[tap]))
    return recording, make_branch(twin, recording)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tap", ["stage1", "stage2", "stage1_pre", "embedding"])
def test_a_branch_with_the_same_weights_gives_the_same_answer(name: str, tap: str) -> None:
    network = made(name)
    recording, branch = split(network, made(name), tap)
    check_branch(network, branch, recording, images())


@pytest.mark.parametrize("name", ["convnet", "resnet", "vgg", "mlp"])
def test_the_trunk_learns_from_every_branch(name: str) -> None:
    """Gradients equal those of two whole networks that share their first tensors by hand."""
    network, twin = made(name, 0).eval(), made(name, 1).eval()
    tap = "stage1"
    recording, branch = split(network, twin, tap)
    first = recording.run(network, images())
    loss = first.square().sum() + branch(images()).square().sum()
    loss.backward()
    trunk = [p for path in recording.cut.calls for p in network.get_submodule(path).parameters()]
    found = [p.grad.clone() for p in trunk if p.grad is not None]
    network.zero_grad()
    other = made(name, 1).eval()
    shared = dict(network.named_parameters())
    names = {
        f"{path}.{key}"
        for path in recording.cut.calls
        for key, _ in network.get_submodule(path).named_parameters()
    }
    whole = {key: shared[key] if key in names else p for key, p in other.named_parameters()}
    buffers = {**dict(other.named_buffers()), **dict(network.named_buffers())}
    second = torch.func.functional_call(other, {**whole, **buffers}, (images(),))
    (network(images()).square().sum() + second.square().sum()).backward()
    assert len(found) == len(trunk) > 0
    for parameter, gradient in zip(trunk, found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_trunk_runs_once_and_is_not_in_the_branch() -> None:
    network, twin = made("convnet", 0), made("convnet", 1)
    recording, branch = split(network, twin, "stage2")
    before = int(network.get_submodule("stages.0.bn").num_batches_tracked)
    recording.run(network, images())
    branch(images())
    assert int(network.get_submodule("stages.0.bn").num_batches_tracked) == before + 1
    names = {name.removeprefix("network.") for name, _ in branch.named_parameters()}
    assert names == {"stages.2.conv.weight", "stages.2.bn.weight", "stages.2.bn.bias",
                     "fc.weight", "fc.bias"}  # fmt: skip
    # the pooling between stages is used on both sides: once from the record, once anew
    assert isinstance(twin.get_submodule("pool"), Replay)
    assert recording.cut.calls["pool"] == (1, 2)
    assert set(network.state_dict()) == set(made("convnet").state_dict())


class Remembers(nn.Module):
    """A module that keeps what it saw, for somebody else to read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen = torch.zeros(1)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        hidden: Tensor = self.layer(images)
        return hidden


class Bypass(nn.Module):
    """What comes after the cut reads more than what the modules before it put out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Remembers()
        self.last = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(images) + self.first.seen)
        return logits


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.norm(self.layer(images)))


def test_networks_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(ConfigError, match="layer runs before and after"):
        find_cut(Twice(), torch.randn(2, 4), "norm", "norm")
    with pytest.raises(ConfigError, match="No module with weights"):
        find_cut(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 4), "0", "0")
    unused = Twice()
    unused.extra = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="not reached"):
        find_cut(unused, torch.randn(2, 4), "extra", "extra")
    network = Bypass()
    sample = torch.randn(2, 4)
    recording = Recording(network, find_cut(network, sample, "first", "first"))
    with pytest.raises(ConfigError, match="cannot be split at first"):
        check_branch(network, make_branch(Bypass(), recording), recording, sample)
