"""ShuffleNetV2 for small images: Ma et al. (arXiv 1807.11164), section 3.

The stem is a 1x1 convolution without stride or pooling. Parameter names and shapes as in
`kdrun.models.resnet`.
"""

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import ChannelShuffle, conv1x1, conv3x3, stage_taps
from kdrun.ranges import Channels, Layers, ranged

STEM_CHANNELS = 24


class SplitUnit(nn.Module):
    """Convolves half of the channels: `[B, C, H, W]` → the same shape (figure 3c).

    The ReLU follows the concatenation. This changes neither values nor gradients, because the other
    half comes from a ReLU and has no negative values.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.shuffle = ChannelShuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        passing, hidden = images.chunk(2, dim=1)
        hidden = self.relu1(self.bn1(self.conv1(hidden)))
        hidden = self.bn3(self.conv3(self.bn2(self.conv2(hidden))))
        output: Tensor = self.shuffle(self.relu3(torch.cat([passing, hidden], 1)))
        return output


class DownUnit(nn.Module):
    """Two concatenated branches of stride 2: `[B, in, H, W]` → `[B, out, H/2, W/2]` (figure 3d)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = conv3x3(in_channels, in_channels, 2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.conv4 = conv3x3(half, half, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu5 = nn.ReLU()
        self.shuffle = ChannelShuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        left = self.bn1(self.conv1(images))
        left = self.relu2(self.bn2(self.conv2(left)))
        right = self.relu3(self.bn3(self.conv3(images)))
        right = self.bn4(self.conv4(right))
        right = self.relu5(self.bn5(self.conv5(right)))
        output: Tensor = self.shuffle(torch.cat([left, right], 1))
        return output


class ShuffleNetV2(nn.Module):
    """Three stages of a downsampling unit and split units each, then a 1x1 convolution.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    widths: channels of the three stages and of the last convolution. blocks: split units per
    stage.
    Taps: `stem`, `stage1..3`, `stage1..3_pre` (before the last ReLU and shuffle), `embedding`.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        widths: list[Channels],
        blocks: list[Layers],
    ) -> None:
        super().__init__()
        _check(widths, blocks)
        self.conv1 = conv1x1(in_channels, STEM_CHANNELS)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(STEM_CHANNELS, widths[0], blocks[0])
        self.layer2 = _stage(widths[0], widths[1], blocks[1])
        self.layer3 = _stage(widths[1], widths[2], blocks[2])
        self.conv2 = conv1x1(widths[2], widths[3])
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.relu2 = nn.ReLU()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[3], num_classes)
        self.taps = stage_taps(
            stages=["layer1", "layer2", "layer3"],
            pre=[f"layer{i}.{count}.relu3:in" for i, count in enumerate(blocks, 1)],
            classifier="linear",
            stem="relu1",
        )

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu1(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        hidden = self.relu2(self.bn2(self.conv2(hidden)))
        logits: Tensor = self.linear(self.average(hidden).flatten(1))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    units = (SplitUnit(out_channels) for _ in range(blocks))
    return nn.Sequential(DownUnit(in_channels, out_channels), *units)


def _check(widths: list[int], blocks: list[int]) -> None:
    if len(widths) != 4 or len(blocks) != 3 or min(blocks) < 1:
        raise ConfigError(
            "widths must be four numbers and blocks three, e.g. [116,232,464,1024] and [3,7,3]."
        )
    if any(width % 2 for width in widths[:3]):
        raise ConfigError(f"widths={list(widths)}: the three stages' must be even.")
