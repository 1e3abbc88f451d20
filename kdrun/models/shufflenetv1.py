"""ShuffleNet for small images: Zhang et al. (arXiv 1707.01083), table 1.

The stem is a 1x1 convolution without stride or pooling. Parameter names and shapes as in
`kdrun.models.resnet`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import ChannelShuffle, conv1x1, conv3x3, stage_taps
from kdrun.ranges import Channels, Layers, ranged

STEM_CHANNELS = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1: `[B, in, H, W]` → `[B, out, H', W']`.

    With stride 1 the input is added (`in` = `out`). With stride 2 the average-pooled input is
    concatenated as the last `in` of the `out` channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        branch_channels = out_channels - in_channels if stride == 2 else out_channels
        middle = branch_channels // 4
        # The stem has too few channels to be worth splitting into groups (section 3.2).
        first_groups = 1 if in_channels == STEM_CHANNELS else groups
        self.conv1 = conv1x1(in_channels, middle, groups=first_groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU()
        self.shuffle1 = ChannelShuffle(first_groups)
        self.conv2 = conv3x3(middle, middle, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(middle, branch_channels, groups=groups)
        self.bn3 = nn.BatchNorm2d(branch_channels)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu3 = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.shuffle1(self.relu1(self.bn1(self.conv1(images))))
        hidden = self.relu2(self.bn2(self.conv2(hidden)))
        hidden = self.bn3(self.conv3(hidden))
        if self.pool is None:
            output: Tensor = self.relu3(hidden + images)
        else:
            output = self.relu3(torch.cat([hidden, self.pool(images)], 1))
        return output


class ShuffleNetV1(nn.Module):
    """Three stages of shuffle units; the first unit of each halves the size.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    widths, blocks: channels and units of each stage. groups: of the 1x1 convolutions.
    Taps: `stem`, `stage1..3` (after the ReLU), `stage1..3_pre` (before it), `embedding`.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        widths: list[Channels],
        blocks: list[Layers],
        groups: Channels,
    ) -> None:
        super().__init__()
        _check(widths, blocks, groups)
        self.conv1 = conv1x1(in_channels, STEM_CHANNELS)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU()
        self.layer1 = _stage(STEM_CHANNELS, widths[0], blocks[0], groups)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], groups)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], groups)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[2], num_classes)
        self.taps = stage_taps(
            stages=["layer1", "layer2", "layer3"],
            pre=[f"layer{i}.{count - 1}.relu3:in" for i, count in enumerate(blocks, 1)],
            classifier="linear",
            stem="relu",
        )

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.linear(self.average(hidden).flatten(1))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, groups: int) -> nn.Sequential:
    first = ShuffleUnit(in_channels, out_channels, 2, groups)
    return nn.Sequential(
        first, *(ShuffleUnit(out_channels, out_channels, 1, groups) for _ in range(blocks - 1))
    )


def _check(widths: list[int], blocks: list[int], groups: int) -> None:
    if len(widths) != 3 or len(blocks) != 3 or min(blocks) < 1:
        raise ConfigError(
            "widths and blocks must be three numbers each, e.g. [240,480,960], [4,8,4]."
        )
    step = 4 * groups
    for before, width in pairwise([STEM_CHANNELS, *widths]):
        if width <= before or width % step or (width - before) % step:
            raise ConfigError(
                f"widths={list(widths)} must rise from {STEM_CHANNELS} in multiples of 4 * groups, "
                f"here {step}."
            )
