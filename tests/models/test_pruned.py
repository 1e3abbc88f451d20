"""Pruned networks: architecture, weights, and that they are rebuilt without torch-pruning."""

import sys

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import Tensor, nn

from kdrun.config import composition, parse
from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.models.build import build_network
from kdrun.models.features.taps import tap_paths
from kdrun.models.measure import count_flops, count_parameters
from kdrun.models.pruned import keep_blocks, with_architecture
from kdrun.models.pruning import prune_channels, structure
from kdrun.types import InputInfo

INFO = InputInfo(5, 3, (32, 32))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def config_of(name: str, **settings: object) -> NetworkConfig:
    composition.register()
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        base = parse.distill_config(compose("distill", [f"student={name}"])).student
    network = {"_target_": base.target, **base.kwargs}
    target = "kdrun.models.pruned.pruned_network"
    return NetworkConfig("pruned", target, {"network": network, **settings}, {})


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "cnn_tiny"])
def test_half_of_the_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_pruning")
    config = with_architecture(config_of(name), INFO)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    pruned = build_network(config, INFO)
    whole = build_network(NetworkConfig(name, *_target(config), {}), INFO)
    assert 0.2 < count_parameters(pruned) / count_parameters(whole) < 0.4
    assert 0.2 < count_flops(pruned, IMAGES) / count_flops(whole, IMAGES) < 0.5
    assert pruned(IMAGES).shape == (2, 5)
    assert tap_paths(pruned, IMAGES, {}).keys() == tap_paths(whole, IMAGES, {}).keys()


def _target(config: NetworkConfig) -> tuple[str, dict[str, object]]:
    network = dict(config.kwargs["network"])
    return network.pop("_target_"), network


def test_the_teachers_weights_fit_and_compute_the_same_without_the_removed_channels() -> None:
    """Channels that are zero in the teacher are those that go, and nothing changes."""
    pytest.importorskip("torch_pruning")
    config = with_architecture(config_of("resnet8"), INFO)
    torch.manual_seed(0)
    teacher = build_network(NetworkConfig("resnet8", *_target(config), {}), INFO).eval()
    with torch.no_grad():  # the odd channels of every block's first convolution
        for name, module in teacher.named_modules():
            if name.endswith(("0.conv1", "0.bn1")):
                for parameter in module.parameters(recurse=False):
                    parameter[1::2] = 0
    inner = prune_channels(teacher, IMAGES, 0.5, "magnitude").eval()
    build_network(config, INFO).load_state_dict(inner.state_dict())
    for name, module in inner.named_modules():
        if name.endswith("0.bn1"):
            assert bool((module.weight != 0).all()), name


@pytest.mark.parametrize(("name", "left"), [("resnet14", 0.44), ("deit_micro", 0.51)])
def test_half_of_the_blocks_needs_no_library(
    name: str, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    config = with_architecture(config_of(name, depth=0.5), INFO)
    assert config.kwargs["widths"] == {}
    pruned = build_network(config, INFO)
    whole = build_network(NetworkConfig(name, *_target(config), {}), INFO)
    assert count_parameters(pruned) / count_parameters(whole) == pytest.approx(left, abs=0.05)
    keep_blocks(whole, config.kwargs["blocks"])
    pruned.load_state_dict(whole.state_dict())
    assert torch.equal(pruned.eval()(IMAGES), whole.eval()(IMAGES))
    assert tap_paths(pruned, IMAGES, {}).keys() == tap_paths(whole, IMAGES, {}).keys()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mlp", {"ratio": 0.5}, "convolutional teacher"),
        ("deit_micro", {"ratio": 0.5}, r"Remove blocks instead: student.depth=0\.5"),
        ("shufflenetv1", {"ratio": 0.5}, r"student.depth=0\.5"),
        ("vgg8", {"depth": 0.5}, r"removes no block.*Remove channels instead: student.ratio=0\.5"),
        ("resnet8", {"ratio": 1e-9}, r"too small for this network.* removes one is 0\.008"),
        ("resnet8", {"ratio": 1.0}, "student.ratio=1 must lie in"),
        ("resnet8", {"ratio": 0.0}, "removes nothing"),
        ("resnet8", {"importance": "taylor"}, "is not one of magnitude, batch_norm"),
    ],
)
def test_what_cannot_be_pruned(name: str, settings: dict[str, object], said: str) -> None:
    pytest.importorskip("torch_pruning")
    with pytest.raises(ConfigError, match=said):
        with_architecture(config_of(name, **settings), INFO)


def test_a_larger_ratio_leaves_fewer_channels_and_at_least_one() -> None:
    pytest.importorskip("torch_pruning")
    left = []
    for ratio in (0.5, 0.9, 0.95, 0.97, 0.99):
        config = with_architecture(config_of("resnet8", ratio=ratio), INFO)
        assert all(n > 0 for size in config.kwargs["widths"].values() for n in size)
        left.append(count_parameters(build_network(config, INFO)))
    assert left == sorted(set(left), reverse=True)
    assert left[-1] < 200  # one channel in each layer


class Normalised(nn.Module):
    """Convolutions with other normalisations than batch normalisation between them."""

    def __init__(self, norm: nn.Module, shuffled: bool, act: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 16, 3), norm, act
        self.second, self.classes = nn.Conv2d(16, 16, 3), nn.Linear(16, 5)
        self.shuffled = shuffled

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        if self.shuffled:
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        logits: Tensor = self.classes(self.second(x).mean((2, 3)))
        return logits


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Scales channels by their share of the norm of all, as in ConvNeXt V2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        norms: Tensor = x.norm(dim=(2, 3), keepdim=True)
        return x + self.weight.view(1, -1, 1, 1) * x * norms / norms.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(4, 16), nn.GroupNorm(1, 16), ChannelNorm(16), GlobalResponseNorm(16)],
    ids=["groups", "one_group", "layer", "global_response"],
)
def test_other_normalisations(norm: nn.Module) -> None:
    """They depend on all channels, and yet a network with a lost order is found out."""
    pytest.importorskip("torch_pruning")
    network = Normalised(norm, False, nn.ReLU())
    widths, _ = structure(network, (3, 32, 32), 0.5, None, "magnitude")
    assert widths["second"] == [8, 8, 1]
    with pytest.raises(ConfigError, match=r"loses their order .*choose another teacher"):
        structure(Normalised(norm, True, nn.ReLU()), (3, 32, 32), 0.5, None, "magnitude")


def test_neither_channels_nor_blocks_is_no_circle() -> None:
    pytest.importorskip("torch_pruning")
    network = Normalised(nn.BatchNorm2d(16), False, nn.Softplus())
    for ratio, depth in ((0.5, None), (None, 0.5)):
        with pytest.raises(ConfigError, match="either: choose another teacher"):
            structure(network, (3, 32, 32), ratio, depth, "magnitude")


class Scaled(Normalised):
    """A new network hides a branch behind a scale of zero."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), True, nn.ReLU())
        self.scale = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def test_a_fault_that_shows_after_training_is_found_before() -> None:
    pytest.importorskip("torch_pruning")
    with pytest.raises(ConfigError, match="cannot be pruned"):
        structure(Scaled(), (3, 32, 32), 0.5, None, "magnitude")
