"""Every kind of network as ONNX and PT2, run with batches of other sizes, compared with PyTorch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from kdrun.config import composition, parse
from kdrun.deploy import formats
from kdrun.deploy.student import LoadedNetwork
from kdrun.errors import ConfigError, MissingExtraError
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard
from kdrun.types import InputInfo, Normalisation

KINDS = ["cnn_tiny", "mlp"]
SLOW = [
    "wrn_16_1",
    "vgg8",
    "resnet8",
    "squeezenet1_1",
    "mobilenetv2",
    "shufflenetv1",
    "shufflenetv2",
    "resnet50",
    "mobilenet_v3_small",
    "vit_b_32",
]


def loaded(name: str, channels: int = 3) -> LoadedNetwork:
    """A network with random weights, its statistics moved away from their start, and its card."""
    composition.register()
    known = (Path(__file__).parents[2] / "configs" / "model" / f"{name}.yaml").exists()
    words = (
        [f"student={name}"] if known else ["student=torchvision", f"student.architecture={name}"]
    )
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        config = parse.distill_config(compose("distill", words)).student
    info = InputInfo(4, channels, (32, 32))
    torch.manual_seed(0)
    network = build_network(config, info)
    with torch.no_grad():
        network(torch.randn(8, channels, 32, 32))
    card = NetworkCard(
        name,
        config.target,
        config.kwargs,
        {},
        ("cat", "dog", "쥐", "d,e"),
        info,
        Normalisation((0.4,) * channels, (0.25,) * channels),
        1,
        1,
        "0" * 64,
    )
    return LoadedNetwork(network, card)


def pixels(count: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8)


def assert_equal(network: LoadedNetwork, run: formats.Runner) -> None:
    for count in (1, 2, 5):
        images = pixels(count)
        with torch.no_grad():
            torch.testing.assert_close(run(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", [*KINDS, *(pytest.param(name, marks=pytest.mark.heavy) for name in SLOW)]
)
def test_every_kind_as_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    network = loaded(name)
    formats.write_onnx(network, network.card, "uint8", tmp_path / "x.onnx")
    assert_equal(network, formats.onnx_runner(tmp_path / "x.onnx", 1))


@pytest.mark.parametrize("name", ["resnet8", pytest.param("shufflenetv1", marks=pytest.mark.heavy)])
def test_as_pt2(name: str, tmp_path: Path) -> None:
    network = loaded(name)
    formats.write_pt2(network, network.card, "uint8", tmp_path / "x.pt2")
    assert_equal(network, formats.pt2_runner(tmp_path / "x.pt2"))
    found = formats.read_metadata(tmp_path / "x.pt2")
    assert found == formats.metadata(network.card, "uint8")


def test_as_safetensors(tmp_path: Path) -> None:
    network = loaded("cnn_tiny")
    path, card_path = tmp_path / "x.safetensors", tmp_path / "y.json"
    formats.write_safetensors(network, network.card, "uint8", path, card_path)
    assert_equal(network, formats.safetensors_runner(path, card_path))
    found = formats.read_metadata(path)
    assert found.pop("format") == "pt"
    assert found == formats.metadata(network.card, "uint8", folded=False)


def test_tied_weights_as_safetensors(tmp_path: Path) -> None:
    network = loaded("wrn_16_1")
    first, second = [m for m in network.network.modules() if isinstance(m, torch.nn.BatchNorm2d)][
        :2
    ]
    second.weight = first.weight
    path = tmp_path / "x.safetensors"
    formats.write_safetensors(network, network.card, "uint8", path, tmp_path / "y.json")
    assert_equal(network, formats.safetensors_runner(path, tmp_path / "y.json"))


def test_what_is_inside_an_onnx_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    network = loaded("cnn_tiny")
    path = tmp_path / "x.onnx"
    formats.write_onnx(network, network.card, "uint8", path)
    found = formats.read_metadata(path)
    assert found == formats.metadata(network.card, "uint8")
    assert found["classes"] == ["cat", "dog", "쥐", "d,e"]
    assert found["normalisation"]["inside"] is True
    graph = onnx.load(path).graph
    (given,) = graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == [
        "batch", 3, 32, 32,
    ]  # fmt: skip
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


@pytest.mark.heavy
def test_floats_go_in_where_the_data_are_floats(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = loaded("cnn_tiny")
    formats.write_onnx(network, network.card, "float32", tmp_path / "x.onnx")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(formats.onnx_runner(tmp_path / "x.onnx", 1)(images), expected)


def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if images.sum() > 3:
                images = images + 1
            return images.mean(dim=(2, 3))

    network = loaded("cnn_tiny")
    odd = LoadedNetwork(Odd(), replace(network.card, name="odd"))
    with pytest.raises(ConfigError, match=r"odd cannot be written as a graph: .*safetensors"):
        formats.write_pt2(odd, odd.card, "uint8", tmp_path / "x.pt2")


def test_a_missing_package_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(formats.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'kdrun\[onnx\]'"):
        formats.require("onnxruntime")
