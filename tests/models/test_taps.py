"""Features by name."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.cnn import ConvNet
from kdrun.models.features.taps import FeatureExtractor, tap_paths, tap_shapes
from kdrun.models.resnet import ResNet
from kdrun.types import Normalisation, Outputs


def network() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(10, 1, widths=[4, 8])


def images() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Overwriting(nn.Module):
    """Adds to a module's output in place, as many residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.unused = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(x)
        hidden += 1
        logits: Tensor = self.fc(self.relu(hidden).mean((2, 3)))
        return logits


class Tuples(nn.Module):
    """Attention returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1).unflatten(1, (-1, 4))
        logits: Tensor = self.fc(self.attention(query=tokens, key=tokens, value=tokens)[0].mean(1))
        return logits


def test_without_taps_there_are_no_hooks() -> None:
    plain = network()
    extractor = FeatureExtractor(plain)
    outputs = extractor(images())
    assert outputs.features == {}
    assert outputs.embedding is None
    assert not any(module._forward_hooks for module in plain.modules())
    torch.testing.assert_close(outputs.logits, plain(images()))


def test_names_module_paths_and_inputs() -> None:
    net = network().eval()
    names = ["stage2", "stages.0.conv", "fc:in"]
    outputs = FeatureExtractor(net, names, embedding=True)(images())
    assert list(outputs.features) == names
    torch.testing.assert_close(outputs.features["stages.0.conv"], net.stages[0].conv(images()))
    torch.testing.assert_close(outputs.features["fc:in"], outputs.features["stage2"].mean((2, 3)))
    assert torch.equal(outputs.features["fc:in"], outputs.embedding)


def test_the_network_is_as_before() -> None:
    net = network()
    keys = list(net.state_dict())
    before = net(images())
    extractor = FeatureExtractor(net, ["stage1"])
    assert extractor.network is net
    assert list(net.state_dict()) == keys
    assert torch.equal(net(images()), before)
    assert [f"network.{key}" for key in keys] == list(extractor.state_dict())
    assert extractor._record.tensors == {}
    extractor.close()
    assert not any(module._forward_hooks for module in net.modules())
    assert extractor(images()).features == {}


def test_two_wrappers_of_one_network_do_not_mix() -> None:
    net = network().eval()
    first, second = FeatureExtractor(net, ["stage1"]), FeatureExtractor(net, ["stage2"])
    assert list(first(images()).features) == ["stage1"]
    assert list(second(images()).features) == ["stage2"]
    assert first._record.tensors == second._record.tensors == {}


def test_gradients_flow_through_taps() -> None:
    extractor = FeatureExtractor(network(), ["stage1", "stage2_pre"], embedding=True)
    outputs = extractor(images())
    outputs.features["stage1"].square().sum().backward()
    gradients = {name: p.grad for name, p in extractor.network.named_parameters()}
    assert gradients["stages.0.conv.weight"].abs().sum() > 0
    assert gradients["stages.1.conv.weight"] is None
    extractor(images()).embedding.square().sum().backward()
    assert extractor.network.stages[1].conv.weight.grad.abs().sum() > 0


def test_copies_are_independent() -> None:
    extractor = FeatureExtractor(network().eval(), ["stage1"], embedding=True)
    before = extractor(images())
    for other in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert not other(images()).features["stage1"].any()
        after = extractor(images())
        assert torch.equal(after.features["stage1"], before.features["stage1"])
        other.close()
        assert list(extractor(images()).features) == ["stage1"]


def test_an_error_inside_leaves_nothing_behind() -> None:
    extractor = FeatureExtractor(network(), ["stage1"])
    with pytest.raises(RuntimeError):
        extractor(torch.zeros(2, 3, 8, 8))
    assert not extractor._record.active
    assert extractor._record.tensors == {}
    assert extractor(images()).features["stage1"].shape == (3, 4, 8, 8)


@pytest.mark.parametrize("training", [True, False])
def test_compiled_without_graph_breaks(training: bool) -> None:
    extractor = FeatureExtractor(
        network().train(training), ["stage1", "stage2_pre"], embedding=True
    )
    expected = extractor(images())
    torch._dynamo.reset()
    compiled = torch.compile(extractor, backend="aot_eager", fullgraph=True)
    outputs = compiled(images())
    assert isinstance(outputs, Outputs)
    torch.testing.assert_close(outputs.logits, expected.logits)
    torch.testing.assert_close(outputs.embedding, expected.embedding)
    torch.testing.assert_close(outputs.features, expected.features)
    torch._dynamo.reset()


def test_inference_mode() -> None:
    with torch.inference_mode():
        assert FeatureExtractor(network(), ["stage1"])(images()).features["stage1"].shape == (
            3,
            4,
            8,
            8,
        )


def test_an_unknown_tap_lists_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        FeatureExtractor(network(), ["stage9"])
    text = str(caught.value)
    assert "no tap 'stage9'" in text
    assert "stage1, stage2, stage1_pre, stage2_pre, embedding" in text
    assert "Did you mean 'stage" in text


def test_extra_taps_from_the_configuration() -> None:
    net = network()
    paths = tap_paths(net, extra={"early": "stages.0.conv", "stage2": "stages.1.bn"})
    assert paths["early"] == "stages.0.conv"
    assert paths["stage2"] == "stages.1.bn"
    assert paths["stage1"] == "stages.0"
    assert tap_shapes(net, images(), ["early"], paths) == {"early": (3, 4, 8, 8)}
    with pytest.raises(ConfigError, match=r"stages\.0\.con is not in.*Did you mean 'stages\.0"):
        tap_paths(net, extra={"early": "stages.0.con"})


def test_tap_shapes_leaves_the_network_as_it_was() -> None:
    net = network().train()
    net.stages[0].eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    random_state = torch.get_rng_state()
    assert tap_shapes(net, images(), ["stage1", "embedding"]) == {
        "stage1": (3, 4, 8, 8),
        "embedding": (3, 8),
    }
    assert net.training
    assert not net.stages[0].training
    assert net.stages[1].training
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_tensor_changed_in_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="'conv' in place"):
        FeatureExtractor(Overwriting(), ["conv"], {})(images())
    assert FeatureExtractor(Overwriting(), ["relu"], {})(images()).features["relu"].shape == (
        3,
        4,
        6,
        6,
    )


def test_a_place_that_never_runs_is_named() -> None:
    with pytest.raises(ConfigError, match="'unused' is not reached"):
        FeatureExtractor(Overwriting(), ["unused"], {})(images())


def test_a_place_without_a_tensor_is_named() -> None:
    with pytest.raises(ConfigError, match="'attention' is a tuple"):
        FeatureExtractor(Tuples(), ["attention"], {})(images())
    outputs = FeatureExtractor(Tuples(), ["attention:in"], {})(images())  # given by keyword
    assert outputs.features["attention:in"].shape == (3, 16, 4)


def test_renormalised_before_the_network() -> None:
    source, own = Normalisation((0.5,), (0.25,)), Normalisation((0.1,), (0.5,))
    net = network().eval()
    pixels = torch.rand(3, 1, 8, 8)
    extractor = FeatureExtractor(net, ["stage1"], normalisation=(source, own))
    torch.testing.assert_close(extractor((pixels - 0.5) / 0.25).logits, net((pixels - 0.1) / 0.5))
    assert FeatureExtractor(net, normalisation=(source, source)).renormalise is None
    assert not any("renormalise" in key for key in extractor.state_dict())


def test_resnet_module_paths_are_taps() -> None:
    net = ResNet(10, 3, depth=14, widths=[4, 4, 6, 8])
    shapes = tap_shapes(net, torch.zeros(2, 3, 16, 16), ["layer2.1.conv1", "layer2.0.downsample"])
    assert shapes == {"layer2.1.conv1": (2, 6, 8, 8), "layer2.0.downsample": (2, 6, 8, 8)}
