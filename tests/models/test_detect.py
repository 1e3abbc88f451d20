"""Taps of networks that declare none."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.models.external import torchvision_network
from kdrun.models.features.detect import detect_taps
from kdrun.models.features.taps import FeatureExtractor, tap_paths, tap_shapes


def torchvision_on_meta(architecture: str, size: int) -> tuple[nn.Module, Tensor]:
    with torch.device("meta"):
        network = torchvision_network(architecture, 10, 3, (size, size))
        return network, torch.empty(2, 3, size, size)


def stages_of(network: nn.Module, sample: Tensor) -> dict[str, str]:
    """The detected taps without the pre-activations."""
    found = detect_taps(network, sample)
    return {name: path for name, path in found.items() if not name.endswith("_pre")}


class SqueezeBlock(nn.Module):
    """A convolution with squeeze-and-excitation: leaves the map's size and comes back to it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(self.pool(x)).sigmoid()


class Squeezing(nn.Module):
    """Two stages of squeeze blocks, a convolution after pooling, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(
            SqueezeBlock(4, 4, 2), SqueezeBlock(4, 4, 1), SqueezeBlock(4, 8, 2), nn.Dropout(0.5)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Conv2d(8, 16, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.pool(self.body(F.relu(self.stem(x)))))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class Functional(nn.Module):
    """The usual tutorial network, which overwrites a convolution's output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc1 = nn.Linear(8, 12)
        self.fc2 = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = self.conv2(x)
        x = F.relu(self.conv3(x), inplace=True)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3)))))
        return logits


def test_squeeze_pooling_and_dropout_are_no_stages() -> None:
    network, sample = Squeezing(), torch.zeros(2, 3, 16, 16)
    taps = stages_of(network, sample)
    assert taps == {
        "stem": "body.0:in",
        "stage1": "body.1",
        "stage2": "body.2",
        "embedding": "fc:in",
    }
    assert tap_shapes(network, sample, list(taps), tap_paths(network, sample)) == {
        "stem": (2, 4, 16, 16),
        "stage1": (2, 4, 8, 8),
        "stage2": (2, 8, 4, 4),
        "embedding": (2, 16),
    }


def test_overwritten_outputs_are_not_chosen() -> None:
    assert stages_of(Functional(), torch.zeros(1, 3, 8, 8)) == {
        "stem": "conv1",
        "stage1": "conv2",
        "embedding": "fc2:in",
    }


def test_detection_leaves_no_trace() -> None:
    network = Functional().train()
    random_state = torch.get_rng_state()
    detect_taps(network, torch.zeros(2, 3, 8, 8))
    assert network.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in network.modules())


def test_resnet18() -> None:
    network, sample = torchvision_on_meta("resnet18", 64)
    paths = stages_of(network, sample)
    assert paths == {
        "stem": "relu",
        **{f"stage{i}": f"layer{i}" for i in (1, 2, 3, 4)},
        "embedding": "fc:in",
    }
    assert tap_shapes(network, sample, list(paths)) == {
        "stem": (2, 64, 32, 32),
        "stage1": (2, 64, 16, 16),
        "stage2": (2, 128, 8, 8),
        "stage3": (2, 256, 4, 4),
        "stage4": (2, 512, 2, 2),
        "embedding": (2, 512),
    }


def test_stages_survive_images_of_one_pixel_at_the_end() -> None:
    network, sample = torchvision_on_meta("resnet18", 32)
    shapes = tap_shapes(network, sample, ["stage4", "embedding"])
    assert shapes == {"stage4": (2, 512, 1, 1), "embedding": (2, 512)}


@pytest.mark.parametrize(
    ("architecture", "size", "expected"),
    [
        # Ends of stages, not the expansions that start the next one.
        (
            "mobilenet_v2",
            64,
            ["features.1", "features.3", "features.6", "features.13", "features"],
        ),
        ("densenet121", 64, ["features.transition1.conv", "features.denseblock4"]),
        ("shufflenet_v2_x0_5", 64, ["stage2", "stage3", "conv5"]),
        ("squeezenet1_1", 64, ["features"]),
        ("convnext_tiny", 64, ["features.2.0", "features"]),
        ("inception_v3", 96, ["Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e"]),
        ("swin_t", 64, ["permute"]),
    ],
)
def test_convolutional_families(architecture: str, size: int, expected: list[str]) -> None:
    network, sample = torchvision_on_meta(architecture, size)
    paths = tap_paths(network, sample)
    stages = [
        path
        for name, path in paths.items()
        if name.startswith("stage") and not name.endswith("_pre")
    ]
    assert [path for path in stages if path in expected] == expected
    assert "embedding" in paths
    shapes = tap_shapes(network, sample, list(paths), paths)
    heights = [
        shapes[name][2] for name, path in paths.items() if path in stages and "_pre" not in name
    ]
    assert heights == sorted(set(heights), reverse=True)


def test_vision_transformer() -> None:
    network, sample = torchvision_on_meta("vit_b_16", 32)
    paths = tap_paths(network, sample)
    blocks = [f"encoder.layers.encoder_layer_{i}" for i in (2, 5, 8, 11)]
    assert [paths[f"stage{i}"] for i in (1, 2, 3, 4)] == blocks
    assert paths["embedding"] == "heads.head:in"
    shapes = tap_shapes(network, sample, ["stage4", "embedding"])
    assert shapes == {"stage4": (2, 5, 768), "embedding": (2, 768)}


def test_the_embedding_of_a_convolutional_classifier_is_a_mean() -> None:
    network, sample = torchvision_on_meta("squeezenet1_1", 64)
    extractor = FeatureExtractor(network, (), tap_paths(network, sample), embedding=True)
    assert extractor(sample).embedding.shape == (2, 512)


@pytest.mark.parametrize(
    ("architecture", "size", "expected"),
    [
        ("resnet18", 32, ["layer1.1.relu:in", "layer2.1.relu:in"]),
        ("vgg11_bn", 32, ["features.6:in", "features.13:in"]),
        ("mobilenet_v2", 32, ["features.1", "features.3"]),
    ],
)
def test_pre_activations(architecture: str, size: int, expected: list[str]) -> None:
    paths = detect_taps(*torchvision_on_meta(architecture, size))
    assert [paths["stage1_pre"], paths["stage2_pre"]] == expected


def test_the_input_of_an_activation_in_place_is_read_before_it_is_overwritten() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5)
    )
    extractor = FeatureExtractor(network, ["1:in"], {})
    before = extractor(torch.randn(2, 3, 8, 8)).features["1:in"]
    assert bool((before < 0).any())
