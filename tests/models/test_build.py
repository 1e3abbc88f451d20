"""From configuration to network."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrun.config import trust
from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.models.build import build_network
from kdrun.types import InputInfo

INFO = InputInfo(num_classes=10, in_channels=1, image_size=(8, 8))
CONVNET = NetworkConfig("cnn", "kdrun.models.cnn.ConvNet", {"widths": [4, 8]})


class Own(nn.Module):
    """A user's network that fixes its classes and returns whatever `kind` says."""

    def __init__(self, classes: int = 10, kind: str = "tensor", size: int = 8) -> None:
        super().__init__()
        self.fc = nn.Linear(size * size, classes)
        self.kind = kind

    def forward(self, images: Tensor) -> Any:
        logits = self.fc(images.flatten(1))
        torch.rand(1)  # some networks draw random numbers whatever their mode
        return {
            "tensor": logits,
            "tuple": (logits, logits),
            "object": SimpleNamespace(logits=logits),
            "probabilities": logits.softmax(1),
            "log-probabilities": logits.log_softmax(1),
        }[self.kind]


def not_a_network() -> dict[str, int]:
    return {}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """The dotted path of this file's classes."""
    import sys

    module = SimpleNamespace(Own=Own, not_a_network=not_a_network)
    monkeypatch.setitem(sys.modules, "someones_networks", module)
    trust.name(["someones_networks.Own", "someones_networks.not_a_network"])
    return "someones_networks"


def test_it_gets_what_it_takes_and_is_in_train_mode() -> None:
    network = build_network(CONVNET, INFO)
    assert network.training
    assert all(module.training for module in network.modules())
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_only_the_construction_draws_random_numbers(own: str) -> None:
    torch.manual_seed(0)
    Own()
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_network(NetworkConfig("own", f"{own}.Own"), INFO)
    assert torch.equal(torch.rand(1), expected)


def test_running_statistics_are_untouched() -> None:
    network = build_network(CONVNET, INFO)
    assert all(
        value == 0 for key, value in network.state_dict().items() if key.endswith("batches_tracked")
    )


@pytest.mark.parametrize("kind", ["object", "log-probabilities"])
def test_other_outputs_that_are_accepted(own: str, kind: str) -> None:
    network = build_network(NetworkConfig("own", f"{own}.Own", {"kind": kind}), INFO)
    assert type(network).__name__ == "Own"


@pytest.mark.parametrize(
    ("function", "kwargs", "fragments"),
    [
        ("Own", {"classes": 7}, ["teacher own", "2x7", "10 classes"]),
        ("Own", {"kind": "tuple"}, ["returns a tuple", "logits"]),
        ("Own", {"kind": "probabilities"}, ["teacher own", "probabilities", "remove the softmax"]),
        ("Own", {"size": 9}, ["cannot take 1x8x8 images", "64", "81"]),
        ("Own", {"clases": 7}, ["teacher.clases does not exist", "classes"]),
        ("not_a_network", {}, ["returns a dict", "torch.nn.Module"]),
    ],
)
def test_mistakes(own: str, function: str, kwargs: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_network(NetworkConfig("own", f"{own}.{function}", kwargs), INFO, "teacher")
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_images_that_are_too_small_are_named() -> None:
    config = NetworkConfig("vgg", "kdrun.models.vgg.VGG", {"widths": [[4], [4], [4], [4], [4]]})
    with pytest.raises(ConfigError, match="The student vgg cannot take 1x4x4 images"):
        build_network(config, InputInfo(10, 1, (4, 4)))
