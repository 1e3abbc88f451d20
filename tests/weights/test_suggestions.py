"""A file that does not fit is answered with the network that it fits, and what to type."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import NetworkConfig
from kdrun.errors import CheckpointError
from kdrun.models.build import build_network
from kdrun.models.resnet import ResNet
from kdrun.teachers.formats import read_any
from kdrun.types import InputInfo
from kdrun.weights import explain
from kdrun.weights.load import WeightsChoice

NETWORKS = {config.name: config for config in explain.catalogue()}
INFO = InputInfo(10, 3, (32, 32))


class PaddedBlock(nn.Module):
    """The option-A block as the much-copied CIFAR-10 repository writes it."""

    def __init__(self, before: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.changes, self.planes = stride != 1 or before != planes, planes

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.changes:
            quarter = self.planes // 4
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter), "constant", 0)
        return F.relu(out + x)


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for i, (before, planes, stride) in enumerate([(16, 16, 1), (16, 32, 2), (32, 64, 2)], 1):
            blocks = [PaddedBlock(before, planes, stride)]
            blocks += [PaddedBlock(planes, planes, 1) for _ in range(2)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(F.avg_pool2d(x, x.size()[3]).flatten(1))


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Padded]:
    """As it is published: wrapped, in parallel, without counters of batches."""
    torch.manual_seed(3)
    network = Padded().train()
    network(torch.randn(8, 3, 32, 32))  # statistics unlike those of a new network
    state = {f"module.{k}": v for k, v in network.state_dict().items() if "num_b" not in k}
    path = tmp_path / "resnet20.th"
    torch.save({"state_dict": state, "best_prec1": 91.7}, path)
    return path, network.eval()


def refusal(path: Path, config: NetworkConfig, info: InputInfo = INFO, **choice: Any) -> str:
    network = build_network(config, info, "teacher")
    with pytest.raises(CheckpointError) as caught:
        read_any(path).load_into(network, config, info, WeightsChoice(**choice))
    return str(caught.value)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Compare with these networks alone, which is quicker."""
    monkeypatch.setattr(explain, "catalogue", lambda: tuple(NETWORKS[name] for name in names))


def test_the_advice_leads_to_a_teacher_that_answers_as_the_original(
    published: tuple[Path, Padded], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original = published
    only(monkeypatch, "wrn_16_1", "resnet20")
    text = refusal(path, NETWORKS["resnet20"])
    assert "layer2.0.downsample.0.weight [32, 16, 1, 1]" in text
    assert "linear.weight [10, 64]" in text
    assert text.endswith(
        "It fits resnet20: type teacher=resnet20 teacher.shortcut=pad "
        "'teacher.rename={linear: fc}'."
    )
    network = ResNet(10, depth=20, widths=[16, 16, 32, 64], shortcut="pad")
    choice = WeightsChoice(rename={"linear": "fc"})
    config = NetworkConfig("resnet20", explain.RESNET, {})
    notes = read_any(path).load_into(network, config, INFO, choice)
    assert "set to 0 in 19 layers" in "; ".join(notes)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), original(images))


def test_another_network_is_found_under_other_classes_and_wrappers(
    published: tuple[Path, Padded], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "resnet8", "wrn_16_1", "resnet20")
    text = refusal(published[0], NETWORKS["wrn_16_1"], InputInfo(100, 3, (32, 32)))
    assert "It fits resnet20 with 10 classes: type teacher=resnet20 teacher.shortcut=pad" in text
    assert "(the data have 100)" in text


def test_every_network_of_the_catalogue_is_recognised(tmp_path: Path) -> None:
    for name in ("wrn_40_1", "vgg8", "resnet8x4", "mobilenetv2", "shufflenetv1"):
        network = build_network(NETWORKS[name], INFO, "teacher")
        path = tmp_path / f"{name}.pth"
        torch.save({"model": network.state_dict()}, path)
        names = read_any(path).tensors
        verdict = explain._check(explain.Trial(NETWORKS[name]), names, INFO, WeightsChoice())
        assert verdict is not None, name
        others = [other for other in ("wrn_16_1", "vgg11", "resnet8") if other != name]
        for other in others:
            trial = explain.Trial(NETWORKS[other])
            assert explain._check(trial, names, INFO, WeightsChoice()) is None


def test_grey_weights_of_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "resnet8")
    grey = build_network(NETWORKS["resnet8"], InputInfo(10, 1, (32, 32)), "teacher")
    torch.save(grey.state_dict(), tmp_path / "a.pth")
    text = refusal(tmp_path / "a.pth", NETWORKS["resnet8"])
    assert "conv1.weight is [16, 1, 3, 3] in the file and [16, 3, 3, 3] in the network" in text
    assert "It is a resnet8 with 1 channels, and the data have 3" in text


def test_modules_of_other_names_are_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "resnet8")
    state = build_network(NETWORKS["resnet8"], INFO, "teacher").state_dict()
    renamed = {
        k.replace("downsample", "shortcut").replace("fc.", "linear."): v for k, v in state.items()
    }
    torch.save(renamed, tmp_path / "a.pth")
    text = refusal(tmp_path / "a.pth", NETWORKS["resnet8"])
    found = re.search(r"'teacher.rename=\{(.*)\}'", text)
    assert found is not None, text
    pairs = dict(pair.split(": ") for pair in found[1].split(", "))
    assert pairs == {"shortcut": "downsample", "linear": "fc"}
    network = build_network(NETWORKS["resnet8"], INFO, "teacher")
    choice = WeightsChoice(rename=pairs)
    read_any(tmp_path / "a.pth").load_into(network, NETWORKS["resnet8"], INFO, choice)
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)


def test_padding_takes_no_channels_away() -> None:
    with pytest.raises(Exception, match="cannot take any away"):
        ResNet(10, depth=8, widths=[32, 16, 32, 64], shortcut="pad")
    with pytest.raises(Exception, match="not one of projection, pad"):
        ResNet(10, depth=8, widths=[16, 16, 32, 64], shortcut="A")
