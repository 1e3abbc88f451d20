"""torchvision's and timm's networks."""

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError, MissingExtraError
from kdrun.models.external import (
    WITH_AUXILIARY,
    convert_weight,
    timm_network,
    torchvision_network,
)
from kdrun.models.pretrained import TORCHVISION, published_constants
from kdrun.teachers.constants import transform_note
from kdrun.types import Normalisation
from kdrun.vision import import_torchvision

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the download of resnet18's weights."""
    torch.manual_seed(7)
    state: dict[str, Any] = import_torchvision().models.resnet18().state_dict()
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *args, **kwargs: state)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: state
    )
    return state


def test_classes_channels_and_no_in_place_activations() -> None:
    network = torchvision_network("resnet18", 7, 1, (32, 32)).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    assert not hasattr(network, "normalisation")


def test_auxiliary_classifiers_are_left_out() -> None:
    with torch.device("meta"):
        network = torchvision_network("googlenet", 7, 3, (64, 64)).train()
        assert network(torch.empty(2, 3, 64, 64)).shape == (2, 7)


def test_vision_transformer_takes_the_image_size() -> None:
    with torch.device("meta"):
        network = torchvision_network("vit_b_16", 7, 1, (32, 32))
        assert network(torch.empty(2, 1, 32, 32)).shape == (2, 7)


def test_pretrained_weights_are_kept_and_the_classifier_is_new(
    published: dict[str, Any],
) -> None:
    network = torchvision_network("resnet18", 7, 3, (64, 64), pretrained=True)
    state = network.state_dict()
    assert torch.equal(state["layer3.1.conv2.weight"], published["layer3.1.conv2.weight"])
    assert torch.equal(state["conv1.weight"], published["conv1.weight"])
    assert state["fc.weight"].shape == (7, 512)
    assert network.normalisation == IMAGENET


def test_pretrained_classifier_is_kept_for_its_own_classes(published: dict[str, Any]) -> None:
    network = torchvision_network("resnet18", 1000, 3, (64, 64), pretrained=True)
    assert torch.equal(network.state_dict()["fc.weight"], published["fc.weight"])


def test_pretrained_on_grey_images_responds_as_to_equal_channels(
    published: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    colour = torchvision_network("resnet18", 1000, 3, (64, 64), pretrained=True).eval()
    grey = torchvision_network("resnet18", 1000, 1, (64, 64), pretrained=True).eval()
    images = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3
    )
    assert len(grey.normalisation.mean) == len(grey.normalisation.std) == 1


def test_weights_for_other_channel_counts() -> None:
    weight = torch.randn(4, 3, 3, 3)
    five = convert_weight(weight, 5)
    torch.testing.assert_close(five[:, 3], weight[:, 0] * 3 / 5)
    torch.testing.assert_close(five[:, 2], weight[:, 2] * 3 / 5)
    assert convert_weight(weight, 1).shape == (4, 1, 3, 3)
    # Constant images give the same response, up to the order of summation.
    torch.testing.assert_close(convert_weight(weight, 6).sum(1), weight.sum(1))


def test_unknown_names_and_sizes() -> None:
    with pytest.raises(ConfigError, match=r"architecture=resnet81 .*Did you mean 'resnet18'"):
        torchvision_network("resnet81", 10, 3, (32, 32))
    with pytest.raises(ConfigError, match="square images"):
        torchvision_network("vit_b_16", 10, 3, (32, 48))
    with pytest.raises(ConfigError, match="cannot be built"):
        torchvision_network("vit_b_16", 10, 3, (30, 30))
    with pytest.raises(ConfigError, match=r"are for 224x224 images.*are 32x32"):
        torchvision_network("vit_b_16", 10, 3, (32, 32), pretrained=True)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(
        ConfigError, match=r"weights of resnet18 cannot be downloaded.*no route to host"
    ):
        torchvision_network("resnet18", 10, 3, (32, 32), pretrained=True)


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kdrun\[timm\]'"):
        timm_network("resnet18", 10, 3, (32, 32))


@pytest.mark.parametrize("architecture", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_networks(architecture: str) -> None:
    import_torchvision()  # timm imports it, and it may need help
    pytest.importorskip("timm", reason="timm is an optional extra")
    network: nn.Module = timm_network(architecture, 7, 1, (32, 32)).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    with pytest.raises(ConfigError, match=r"not a timm classifier\. Did you mean"):
        timm_network(f"{architecture}x", 7, 1, (32, 32))


@pytest.mark.parametrize(
    "architecture", [WITH_AUXILIARY[0], pytest.param(WITH_AUXILIARY[1], marks=pytest.mark.heavy)]
)
def test_published_weights_that_transform_their_input_are_built_again_alike(
    monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Two rebuilt networks differ from the pretrained one in nothing: the card keeps constants."""
    models = import_torchvision().models
    state = models.get_model(architecture, init_weights=False, aux_logits=True).state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: state
    )
    original = models.get_model(architecture, weights="DEFAULT").eval()
    network = torchvision_network(architecture, 1000, 3, (80, 80), pretrained=True).eval()
    half = Normalisation((0.5,) * 3, (0.5,) * 3)
    assert network.normalisation == half
    assert original.transform_input
    assert not network.transform_input
    pixels = torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        expected = original(standardised(pixels, IMAGENET))
        torch.testing.assert_close(network(standardised(pixels, half)), expected)
    with torch.device("meta"):
        again = torchvision_network(architecture, 1000, 3, (80, 80))
    assert again.state_dict().keys() == network.state_dict().keys()


def standardised(pixels: torch.Tensor, constants: Normalisation) -> torch.Tensor:
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (constants.mean, constants.std))
    return (pixels - mean) / std


def test_files_that_torchvision_publishes_are_known_by_their_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = "1378be20" + "0" * 56
    monkeypatch.setattr("kdrun.models.pretrained.sha256_of", lambda path: digest)
    config = NetworkConfig("g", TORCHVISION, {"architecture": "googlenet"})
    network = nn.Module()
    assert list(published_constants(config, network, Path("a")).values()) == [IMAGENET]
    network.transform_input = False  # type: ignore[assignment]
    found = published_constants(config, network, Path("a"))
    half = Normalisation((0.5,) * 3, (0.5,) * 3)
    assert found == {"torchvision's GoogLeNet_Weights.IMAGENET1K_V1": half}
    assert transform_note(network, half, "teacher") == []
    assert "expect 'teacher.mean=[0.5,0.5,0.5]'" in transform_note(network, IMAGENET, "teacher")[0]
    for other in (
        NetworkConfig("r", TORCHVISION, {"architecture": "resnet18"}),
        NetworkConfig("r", "mine.googlenet"),
        NetworkConfig("r", TORCHVISION, {"architecture": "none"}),
    ):
        assert published_constants(other, network, Path("a")) == {}
