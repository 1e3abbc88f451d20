"""Weights that other people published, as they are: every tensor is used, the answers are right."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import NetworkConfig
from kdrun.models.build import build_network
from kdrun.teachers.formats import read_any
from kdrun.types import InputInfo
from kdrun.weights.explain import catalogue
from kdrun.weights.load import WeightsChoice

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


@pytest.fixture
def folder(data_dir: Path) -> Path:
    found = data_dir / "weights"
    if not found.is_dir():
        pytest.skip("needs published weights: the folder 'weights' below KDRUN_TEST_DATA")
    return found


def loaded(path: Path, config: NetworkConfig, classes: int, **choice: object) -> nn.Module:
    info = InputInfo(classes, 3, (32, 32))
    network = build_network(config, info)
    read_any(path).load_into(network, config, info, WeightsChoice(**choice))  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["resnet56", "resnet20", "wrn_40_1", "wrn_16_2", "mobilenetv2"])
def test_every_tensor_of_a_published_network_is_used(folder: Path, name: str) -> None:
    path = folder / f"{name}.pth"
    (config,) = (one for one in catalogue() if one.name == name)
    network = loaded(path, config, 100)
    file = torch.load(path, map_location="cpu", weights_only=True)
    state = file.get("model", file)
    found = network.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.needs_data
def test_a_published_teacher_recognises_test_images(folder: Path, data_dir: Path) -> None:
    """Five images of each class: the whole test split has 71.6 %."""
    from PIL import Image

    (config,) = (one for one in catalogue() if one.name == "resnet56")
    network = loaded(folder / "resnet56.pth", config, 100)
    right = 0
    classes = sorted((data_dir / "cifar100" / "test").iterdir())
    for number, place in enumerate(classes):
        images = [Image.open(file).convert("RGB") for file in sorted(place.glob("*.png"))[:5]]
        pixels = torch.stack(
            [torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8) for i in images]
        )
        values = pixels.view(5, 32, 32, 3).permute(0, 3, 1, 2).float() / 255
        values = (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        with torch.no_grad():
            right += int((network(values).argmax(1) == number).sum())
    assert 340 <= right <= 380  # of 500: three standard errors around 71.6 %


@pytest.mark.needs_data
def test_option_a_shortcuts_and_another_name_of_the_classifier(folder: Path) -> None:
    path = folder / "cifar10_resnet20_akamaster.th"
    (config,) = (one for one in catalogue() if one.name == "resnet20")
    padded = NetworkConfig(config.name, config.target, {**config.kwargs, "shortcut": "pad"})
    network = loaded(path, padded, 10, rename={"linear": "fc"})
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {key.removeprefix("module."): value for key, value in state.items()}
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            network(images), _resnet20(weights, images), rtol=1e-4, atol=1e-4
        )


def _resnet20(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """He et al. 2016, section 4.2: three stages of three blocks, option-A shortcuts."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = F.relu(norm(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for block in range(3):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(F.relu(norm(y, f"{name}.bn1")), weights[f"{name}.conv2.weight"], padding=1)
            y = norm(y, f"{name}.bn2")
            if stride == 2:
                missing = (y.shape[1] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing, missing))
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])
