"""ImageNet's bottleneck residual networks with a stem for small images.

He et al. (arXiv 1512.03385), table 1, but the stem is a 3x3 convolution of stride 1 without
pooling. Parameter names and shapes as in `kdrun.models.resnet`.
"""

from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import conv1x1, conv3x3, initialise_fan_out, stage_taps
from kdrun.ranges import Layers, ranged

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, and a shortcut.

    `[B, in, H, W]` → `[B, 4 * width, H/stride, W/stride]`.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.relu3 = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu1(self.bn1(self.conv1(images)))
        hidden = self.relu2(self.bn2(self.conv2(hidden)))
        output: Tensor = self.relu3(self.bn3(self.conv3(hidden)) + self.shortcut(images))
        return output


class BottleneckResNet(nn.Module):
    """Four stages of bottleneck blocks at the full, half, quarter and eighth size.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    blocks: number per stage; [3, 4, 6, 3] is ResNet-50.
    Taps: `stem`, `stage1..4` (after the ReLU), `stage1..4_pre` (before it), `embedding`.
    """

    @ranged
    def __init__(self, num_classes: int, in_channels: int = 3, *, blocks: list[Layers]) -> None:
        super().__init__()
        _check(blocks)
        self.conv1 = conv3x3(in_channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(2048, num_classes)
        self.taps = stage_taps(
            stages=[f"layer{i}" for i in range(1, 5)],
            pre=[f"layer{i}.{count - 1}.relu3:in" for i, count in enumerate(blocks, 1)],
            classifier="linear",
            stem="relu",
        )
        initialise_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(images)))
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        logits: Tensor = self.linear(self.average(hidden).flatten(1))
        return logits


def _check(blocks: list[int]) -> None:
    if len(blocks) != 4 or min(blocks) < 1:
        raise ConfigError(f"blocks={list(blocks)} must be four numbers above 0, e.g. [3,4,6,3].")


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride)
    return nn.Sequential(
        first, *(Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1))
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
