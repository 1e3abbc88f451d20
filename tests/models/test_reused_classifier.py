"""A student that ends in another network's classifier: found, saved, rebuilt."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.losses.base import NetworkView
from kdrun.losses.simkd import ReusedTeacherClassifier
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard, load_network, save_network
from kdrun.models.features.taps import FeatureExtractor, tap_paths
from kdrun.models.reused_classifier import inspect_network
from kdrun.types import InputInfo, Normalisation

INFO = InputInfo(5, 3, (32, 32))
STUDENT = NetworkConfig("small", "kdrun.models.cnn.ConvNet", {"widths": [4, 6]})
TEACHER = NetworkConfig("big", "kdrun.models.resnet.ResNet", {"depth": 8, "widths": [4, 4, 6, 10]})
SHUFFLE = {"widths": [8, 16, 24, 32], "blocks": [1, 1, 1]}
VGG = {"widths": [[4], [4], [4], [8], [8]]}


def made() -> tuple[nn.Module, NetworkConfig]:
    torch.manual_seed(0)
    views = []
    for config in (STUDENT, TEACHER):
        network = build_network(config, INFO)
        views.append(NetworkView(network, tap_paths(network)))
    return ReusedTeacherClassifier().final_network(views[0], STUDENT, views[1], INFO)


def test_it_is_rebuilt_from_its_card_without_the_teacher(tmp_path: Path) -> None:
    network, config = made()
    images = torch.randn(4, 3, 32, 32)
    network.train()(images)  # running statistics that are not the first ones
    card = NetworkCard(
        config.name, config.target, config.kwargs, config.taps, tuple("abcde"), INFO,
        Normalisation((0.5,) * 3, (0.2,) * 3), 0, 0,
    )  # fmt: skip
    save_network(tmp_path, "student", network, card)
    again, _ = load_network(tmp_path, "student")
    assert torch.equal(again.eval()(images), network.eval()(images))


def test_it_has_the_backbones_taps_and_its_own() -> None:
    network, _ = made()
    names = ["stage1", "stage2", "projected"]
    outputs = FeatureExtractor(network, names, embedding=True)(torch.zeros(2, 3, 32, 32))
    shapes = [tuple(outputs.features[name].shape[1:]) for name in names]
    assert shapes == [(4, 32, 32), (6, 16, 16), (10, 8, 8)]
    torch.testing.assert_close(outputs.embedding, outputs.features["projected"].mean((2, 3)))


def test_a_copy_reads_its_own_backbone() -> None:
    network, _ = made()
    twin = copy.deepcopy(network).eval()
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.zero_()
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(twin(images), network.eval()(images))


@pytest.mark.parametrize(
    ("target", "kwargs", "path", "shape"),
    [
        (TEACHER.target, TEACHER.kwargs, "layer3", (10, 8, 8)),
        ("kdrun.models.mobilenetv2.MobileNetV2", {"expansion": 2}, "conv2", (1280, 2, 2)),
        ("kdrun.models.mlp.MLP", {"hidden": [7]}, "fc:in", (7, 1, 1)),
        ("kdrun.models.shufflenetv2.ShuffleNetV2", SHUFFLE, "relu2", (32, 4, 4)),
        ("kdrun.models.vgg.VGG", VGG, None, (8, 4, 4)),
    ],
)
def test_the_map_that_averages_to_the_embedding_is_found(
    target: str,
    kwargs: dict[str, object],
    path: str | None,
    shape: tuple[int, int, int],
) -> None:
    network = build_network(NetworkConfig("any", target, dict(kwargs)), INFO)
    paths = tap_paths(network)
    seen = inspect_network(network, paths["embedding"], INFO)
    assert path is None or seen.path.startswith(path)
    assert seen.shape == shape
    extractor = FeatureExtractor(network, [seen.path], embedding=True).eval()
    outputs = extractor(torch.randn(2, 3, 32, 32))
    found = outputs.features[seen.path]
    average = found.mean((2, 3)) if found.dim() == 4 else found
    torch.testing.assert_close(average, outputs.embedding, rtol=1e-4, atol=1e-5)
    assert seen.shape[0] == outputs.embedding.shape[1]


def test_a_teacher_without_a_linear_classifier_is_refused() -> None:
    class Squared(nn.Module):
        taps = {"embedding": "fc:in"}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3 * 32 * 32, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(images.flatten(1)).square()

    student, teacher = build_network(STUDENT, INFO), Squared()
    with pytest.raises(ConfigError, match="one linear layer of its embedding; Squared ends in Li"):
        ReusedTeacherClassifier().final_network(
            NetworkView(student, tap_paths(student)),
            STUDENT,
            NetworkView(teacher, Squared.taps),
            INFO,
        )
