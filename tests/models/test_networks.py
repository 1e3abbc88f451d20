"""The shipped networks: sizes, shapes, parameter names, taps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.cnn import ConvNet
from kdrun.models.features.taps import FeatureExtractor, tap_shapes
from kdrun.models.layers import ChannelShuffle
from kdrun.models.measure import count_flops, count_parameters
from kdrun.models.mlp import MLP
from kdrun.models.mobilenetv2 import MobileNetV2
from kdrun.models.resnet import BasicBlock, ResNet
from kdrun.models.resnetv2 import BottleneckResNet
from kdrun.models.shufflenetv1 import ShuffleNetV1
from kdrun.models.shufflenetv2 import ShuffleNetV2
from kdrun.models.vgg import VGG
from kdrun.models.wrn import WideResNet

NARROW, WIDE = [16, 16, 32, 64], [32, 64, 128, 256]
VGG8 = [[64], [128], [256], [512], [512]]
VGG13 = [[64, 64], [128, 128], [256, 256], [512, 512], [512, 512]]

# name: (class, arguments, parameters for 100 classes, MFLOP for 3x32x32)
NETWORKS = {
    "resnet8": (ResNet, {"depth": 8, "widths": NARROW}, 83_892, 25),
    "resnet20": (ResNet, {"depth": 20, "widths": NARROW}, 278_324, 82),
    "resnet56": (ResNet, {"depth": 56, "widths": NARROW}, 861_620, 251),
    "resnet110": (ResNet, {"depth": 110, "widths": NARROW}, 1_736_564, 506),
    "resnet8x4": (ResNet, {"depth": 8, "widths": WIDE}, 1_233_540, 354),
    "resnet32x4": (ResNet, {"depth": 32, "widths": WIDE}, 7_433_860, 2166),
    "wrn_16_2": (WideResNet, {"depth": 16, "widen_factor": 2}, 703_284, 202),
    "wrn_40_2": (WideResNet, {"depth": 40, "widen_factor": 2}, 2_255_156, 655),
    "vgg8": (VGG, {"widths": VGG8}, 3_965_028, 192),
    "vgg13": (VGG, {"widths": VGG13}, 9_462_180, 570),
    "resnet50": (BottleneckResNet, {"blocks": [3, 4, 6, 3]}, 23_705_252, 2596),
    "mobilenetv2": (MobileNetV2, {"width": 0.5, "expansion": 6}, 812_836, 13),
    "shufflenetv1": (
        ShuffleNetV1,
        {"widths": [240, 480, 960], "blocks": [4, 8, 4], "groups": 3},
        949_258,
        77,
    ),
    "shufflenetv2": (
        ShuffleNetV2,
        {"widths": [116, 232, 464, 1024], "blocks": [3, 7, 3]},
        1_355_528,
        89,
    ),
}

# Tap shapes of the feature lists of the reference implementation for 3x32x32, [C, H, W].
STAGES = {
    "resnet8": [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)],
    "resnet8x4": [(32, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8)],
    "wrn_16_2": [(16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8)],
    "vgg8": [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)],
    "resnet50": [(64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)],
    "mobilenetv2": [(16, 16, 16), (12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)],
    "shufflenetv1": [(24, 32, 32), (240, 16, 16), (480, 8, 8), (960, 4, 4)],
    "shufflenetv2": [(24, 32, 32), (116, 16, 16), (232, 8, 8), (464, 4, 4)],
}
EMBEDDINGS = {
    "resnet8": 64,
    "resnet8x4": 256,
    "wrn_16_2": 128,
    "vgg8": 512,
    "resnet50": 2048,
    "mobilenetv2": 1280,
    "shufflenetv1": 960,
    "shufflenetv2": 1024,
}


def make(name: str, num_classes: int = 100, in_channels: int = 3) -> nn.Module:
    """A network without memory: shapes and counts only."""
    network_class, arguments, _, _ = NETWORKS[name]
    with torch.device("meta"):
        network: nn.Module = network_class(num_classes, in_channels, **arguments)
    return network


def meta_images(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_flops(name: str) -> None:
    _, _, parameters, mflop = NETWORKS[name]
    network = make(name)
    assert count_parameters(network) == parameters
    flops = count_flops(network, meta_images(2, 3, 32, 32))
    assert flops / 1e6 == pytest.approx(mflop, abs=0.55)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("num_classes", "in_channels", "size"), [(10, 1, 8), (7, 3, 64)])
def test_other_classes_channels_and_sizes(
    name: str, num_classes: int, in_channels: int, size: int
) -> None:
    network = make(name, num_classes, in_channels)
    assert network(meta_images(2, in_channels, size, size)).shape == (2, num_classes)


@pytest.mark.parametrize("name", STAGES)
def test_stage_taps_match_the_reference(name: str) -> None:
    network = make(name)
    stages = STAGES[name]
    numbers = range(1, len(stages))
    taps = [
        "stem",
        *(f"stage{i}" for i in numbers),
        *(f"stage{i}_pre" for i in numbers),
        "embedding",
    ]
    assert list(network.taps) == taps  # type: ignore[arg-type]
    shapes = tap_shapes(network, meta_images(2, 3, 32, 32), taps)
    assert [shapes[name][1:] for name in ["stem", *(f"stage{i}" for i in numbers)]] == stages
    assert [shapes[f"stage{i}_pre"][1:] for i in numbers] == stages[1:]
    assert shapes["embedding"] == (2, EMBEDDINGS[name])


def bn(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{p}": (width,) for p in parts} | {f"{name}.num_batches_tracked": ()}


BASIC_BLOCK_KEYS = {
    "conv1.weight": (16, 3, 3, 3),
    **bn("bn1", 16),
    "layer2.0.conv1.weight": (32, 16, 3, 3),
    **bn("layer2.0.bn1", 32),
    "layer2.0.conv2.weight": (32, 32, 3, 3),
    **bn("layer2.0.bn2", 32),
    "layer2.0.downsample.0.weight": (32, 16, 1, 1),
    **bn("layer2.0.downsample.1", 32),
    "fc.weight": (100, 64),
    "fc.bias": (100,),
}
# network: (number of tensors in its state dict, some of them)
STATE = {
    "resnet8": (56, BASIC_BLOCK_KEYS),
    "wrn_16_2": (
        83,
        {
            "conv1.weight": (16, 3, 3, 3),
            **bn("block1.layer.0.bn1", 16),
            "block1.layer.0.conv1.weight": (32, 16, 3, 3),
            **bn("block1.layer.0.bn2", 32),
            "block1.layer.0.conv2.weight": (32, 32, 3, 3),
            "block1.layer.0.convShortcut.weight": (32, 16, 1, 1),
            "block3.layer.1.conv2.weight": (128, 128, 3, 3),
            **bn("bn1", 128),
            "fc.weight": (100, 128),
            "fc.bias": (100,),
        },
    ),
    "vgg13": (
        72,
        {
            "block0.0.weight": (64, 3, 3, 3),
            "block0.0.bias": (64,),
            **bn("block0.1", 64),
            "block0.3.weight": (64, 64, 3, 3),
            **bn("block4.4", 512),
            "classifier.weight": (100, 512),
            "classifier.bias": (100,),
        },
    ),
    "resnet50": (
        320,
        {
            "conv1.weight": (64, 3, 3, 3),
            **bn("bn1", 64),
            "layer1.0.conv3.weight": (256, 64, 1, 1),
            "layer1.0.shortcut.0.weight": (256, 64, 1, 1),
            **bn("layer1.0.shortcut.1", 256),
            "layer4.2.conv1.weight": (512, 2048, 1, 1),
            **bn("layer4.2.bn3", 2048),
            "linear.weight": (100, 2048),
            "linear.bias": (100,),
        },
    ),
    "mobilenetv2": (
        320,
        {
            "conv1.0.weight": (16, 3, 3, 3),
            **bn("conv1.1", 16),
            "blocks.0.0.conv.0.weight": (16, 16, 1, 1),
            "blocks.1.0.conv.0.weight": (48, 8, 1, 1),
            "blocks.1.0.conv.3.weight": (48, 1, 3, 3),
            "blocks.6.0.conv.6.weight": (160, 480, 1, 1),
            **bn("blocks.6.0.conv.7", 160),
            "conv2.0.weight": (1280, 160, 1, 1),
            **bn("conv2.1", 1280),
            "classifier.0.weight": (100, 1280),
            "classifier.0.bias": (100,),
        },
    ),
    "shufflenetv1": (
        296,
        {
            "conv1.weight": (24, 3, 1, 1),
            **bn("bn1", 24),
            "layer1.0.conv1.weight": (54, 24, 1, 1),
            "layer1.0.conv2.weight": (54, 1, 3, 3),
            "layer1.0.conv3.weight": (216, 18, 1, 1),
            **bn("layer1.0.bn3", 216),
            "layer3.3.conv1.weight": (240, 320, 1, 1),
            "linear.weight": (100, 960),
            "linear.bias": (100,),
        },
    ),
    "shufflenetv2": (
        338,
        {
            "conv1.weight": (24, 3, 1, 1),
            **bn("bn1", 24),
            "layer1.0.conv1.weight": (24, 1, 3, 3),
            "layer1.0.conv2.weight": (58, 24, 1, 1),
            "layer1.0.conv3.weight": (58, 24, 1, 1),
            "layer1.0.conv4.weight": (58, 1, 3, 3),
            **bn("layer1.0.bn5", 58),
            "layer1.1.conv1.weight": (58, 58, 1, 1),
            "layer1.1.conv2.weight": (58, 1, 3, 3),
            **bn("layer1.1.bn3", 58),
            "conv2.weight": (1024, 464, 1, 1),
            **bn("bn2", 1024),
            "linear.weight": (100, 1024),
            "linear.bias": (100,),
        },
    ),
}


@pytest.mark.parametrize("name", STATE)
def test_state_dict_names_and_shapes(name: str) -> None:
    state = {key: tuple(value.shape) for key, value in make(name).state_dict().items()}
    count, expected = STATE[name]
    assert {key: state.get(key) for key in expected} == expected
    assert len(state) == count


def test_resnet_taps_equal_a_hand_computation() -> None:
    torch.manual_seed(0)
    network = ResNet(5, 3, depth=8, widths=[4, 4, 6, 8]).eval()
    images = torch.randn(3, 3, 16, 16)
    names = ["stem", "stage1", "stage1_pre", "stage2_pre", "stage3"]
    outputs = FeatureExtractor(network, names, embedding=True)(images)

    stem = network.bn1(network.conv1(images)).relu()
    pre, hidden = [], stem
    for layer in (network.layer1, network.layer2, network.layer3):
        block = layer[0]
        branch = block.bn2(block.conv2(block.bn1(block.conv1(hidden)).relu()))
        pre.append(branch + (hidden if block.downsample is None else block.downsample(hidden)))
        hidden = pre[-1].relu()
    expected = [stem, pre[0].relu(), pre[0], pre[1], pre[2].relu()]
    for name, tensor in zip(names, expected, strict=True):
        torch.testing.assert_close(outputs.features[name], tensor)
    torch.testing.assert_close(outputs.embedding, hidden.mean((2, 3)))
    torch.testing.assert_close(outputs.logits, network.fc(hidden.mean((2, 3))))


def test_wrn_stages_are_raw_sums_and_pre_is_normalised() -> None:
    torch.manual_seed(0)
    network = WideResNet(5, 3, depth=10, widen_factor=1).eval()
    nn.init.uniform_(network.bn1.weight, 0.5, 2.0)
    outputs = FeatureExtractor(network, ["stage2", "stage3", "stage3_pre"], embedding=True)(
        torch.randn(3, 3, 16, 16)
    )
    stage2, stage3 = outputs.features["stage2"], outputs.features["stage3"]
    assert (stage3 < 0).any()
    torch.testing.assert_close(network.block3(stage2), stage3)
    torch.testing.assert_close(outputs.features["stage3_pre"], network.bn1(stage3))
    torch.testing.assert_close(outputs.embedding, network.bn1(stage3).relu().mean((2, 3)))


def test_wrn_shortcut_projects_the_activated_input_or_passes_the_raw_one() -> None:
    torch.manual_seed(0)
    first, second = WideResNet(5, 3, depth=16, widen_factor=2).eval().block2.layer
    images = torch.randn(2, 32, 8, 8)
    active = first.bn1(images).relu()
    branch = first.conv2(first.bn2(first.conv1(active)).relu())
    output = first(images)
    torch.testing.assert_close(output, branch + first.convShortcut(active))
    assert second.convShortcut is None
    branch = second.conv2(second.bn2(second.conv1(second.bn1(output).relu())).relu())
    torch.testing.assert_close(second(output), branch + output)


def test_shufflenetv1_concatenates_the_pooled_input_last() -> None:
    torch.manual_seed(0)
    network = ShuffleNetV1(5, 3, widths=[48, 96, 192], blocks=[1, 1, 1], groups=3).eval()
    unit = network.layer1[0]
    images = torch.rand(2, 24, 8, 8)
    output = unit(images)
    assert output.shape == (2, 48, 4, 4)
    pooled = nn.functional.avg_pool2d(images, 3, stride=2, padding=1)
    torch.testing.assert_close(output[:, 24:], pooled)


def test_channel_shuffle_deals_the_groups_out_in_turn() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(3)(channels).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_shufflenetv2_last_relu_after_the_join_changes_nothing() -> None:
    torch.manual_seed(0)
    network = ShuffleNetV2(5, 3, widths=[8, 16, 24, 32], blocks=[1, 1, 1]).double()
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    entering = network.layer1[0](network.relu1(network.bn1(network.conv1(images))))
    unit = network.layer1[1]

    passing, hidden = entering.chunk(2, dim=1)
    hidden = unit.bn2(unit.conv2(unit.bn1(unit.conv1(hidden)).relu()))
    expected = unit.shuffle(torch.cat([passing, unit.bn3(unit.conv3(hidden)).relu()], 1))
    output = unit(entering)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    (gradient,) = torch.autograd.grad((output * weights).sum(), images, retain_graph=True)
    (reference,) = torch.autograd.grad((expected * weights).sum(), images)
    torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("size", [1, 7, 8, 28, 32])
def test_convnet_takes_any_size(size: int) -> None:
    network = ConvNet(10, 1, widths=[4, 8, 16])
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 10)
    assert tap_shapes(network, torch.zeros(2, 1, 8, 8), ["stage1", "stage3_pre", "embedding"]) == {
        "stage1": (2, 4, 8, 8),
        "stage3_pre": (2, 16, 2, 2),
        "embedding": (2, 16),
    }


def test_mlp_is_hintons_network() -> None:
    network = MLP(10, 1, (28, 28), [1200, 1200], dropout=0.5, input_dropout=0.2)
    assert count_parameters(network) == 784 * 1200 + 1200 + 1200 * 1200 + 1200 + 12000 + 10
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.2, 0.5, 0.5]
    shapes = tap_shapes(network, torch.zeros(2, 1, 28, 28), list(network.taps))
    assert shapes["stage1"] == shapes["stage2_pre"] == shapes["embedding"] == (2, 1200)


def test_mlp_without_hidden_layers_is_linear() -> None:
    network = MLP(3, 1, (4, 5), [])
    assert count_parameters(network) == 3 * 20 + 3
    assert network(torch.zeros(2, 1, 4, 5)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_2", "mobilenetv2", "shufflenetv2"])
def test_the_seed_decides_the_weights(name: str) -> None:
    network_class, arguments, _, _ = NETWORKS[name]

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        network = network_class(5, 3, **arguments)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_initialisation_follows_the_fan_out() -> None:
    torch.manual_seed(0)
    network = VGG(100, 3, widths=VGG8)
    weight = network.block3[0].weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not network.classifier.bias.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNet(10, 3, depth=9, widths=NARROW), "6n \\+ 2"),
        (lambda: ResNet(10, 3, depth=8, widths=[16]), "four numbers"),
        (lambda: WideResNet(10, 3, depth=20, widen_factor=1), "6n \\+ 4"),
        (lambda: WideResNet(10, 3, depth=16, widen_factor=0), "at least 1"),
        (lambda: VGG(10, 3, widths=[[8]]), "5 stages"),
        (lambda: BottleneckResNet(10, 3, blocks=[1, 0, 1, 1]), "blocks=.*at least 1"),
        (lambda: MobileNetV2(10, 3, width=0.01), "no channels"),
        (
            lambda: ShuffleNetV1(10, 3, widths=[50, 100, 200], blocks=[1, 1, 1], groups=3),
            "multiples",
        ),
        (lambda: ShuffleNetV2(10, 3, widths=[9, 16, 16, 16], blocks=[1, 1, 1]), "even"),
        (lambda: ConvNet(10, 3, widths=[]), "each stage"),
    ],
)
def test_impossible_shapes_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_stochastic_depth_of_a_resnet_rises_linearly_and_ends_with_training() -> None:
    def resnet(**settings: float) -> ResNet:
        torch.manual_seed(0)
        return ResNet(5, 3, depth=14, widths=[4, 4, 8, 8], **settings)  # type: ignore[arg-type]

    network, plain = resnet(drop_path=0.5), resnet()
    assert network.state_dict().keys() == plain.state_dict().keys()
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    rates = [0.0 if block.drop_path is None else block.drop_path.rate for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    images = torch.randn(8, 3, 8, 8)
    assert torch.equal(network.eval()(images), plain.eval()(images))
    assert not torch.equal(network.train()(images), network(images))
