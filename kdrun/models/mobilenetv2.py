"""MobileNetV2 for small images: Sandler et al. (arXiv 1801.04381), table 2.

For 32x32 images the total stride is 16 instead of 32. Parameter names and shapes follow the same
published code as `kdrun.models.resnet`.
"""

from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import (
    conv1x1,
    conv3x3,
    initialise_classifier,
    initialise_fan_out,
    stage_taps,
)
from kdrun.ranges import Channels, Positive, ranged

# channels at width 1, blocks, stride of the first block
STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection without activation.

    `[B, in, H, W]` → `[B, out, H/stride, W/stride]`, plus the input if the shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.conv = nn.Sequential(
            conv1x1(in_channels, hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv3x3(hidden, hidden, stride, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv1x1(hidden, out_channels),
            nn.BatchNorm2d(out_channels),
        )
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.conv(images)
        return images + output if self.adds_input else output


class MobileNetV2(nn.Module):
    """Seven groups of inverted residual blocks.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    width: multiplier of all channel counts; the last convolution has at least 1280 channels.
    expansion: ratio of hidden to input channels in every block except the first.
    Taps: `stem`; `stage1..4` at the input size divided by 2, 4, 8 and 16; `embedding`. A block
    ends without an activation, so that `stage1..4_pre` are the same tensors.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        width: Positive = 0.5,
        expansion: Channels = 6,
    ) -> None:
        super().__init__()
        _check(width)
        stem = int(STEM_CHANNELS * width)
        last = int(STAGES[-1][0] * width)
        head = int(HEAD_CHANNELS * max(1.0, width))
        self.conv1 = nn.Sequential(conv3x3(in_channels, stem, 2), nn.BatchNorm2d(stem), nn.ReLU())
        self.blocks = _blocks(stem, width, expansion)
        self.conv2 = nn.Sequential(conv1x1(last, head), nn.BatchNorm2d(head), nn.ReLU())
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(head, num_classes))
        stages = ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]
        self.taps = stage_taps(stages, stages, classifier="classifier", stem="conv1")
        initialise_fan_out(self)
        _initialise_head(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv1(images)
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.average(self.conv2(hidden))
        logits: Tensor = self.classifier(hidden.flatten(1))
        return logits


def _blocks(in_channels: int, width: float, expansion: int) -> nn.ModuleList:
    groups = nn.ModuleList()
    for index, (channels, count, stride) in enumerate(STAGES):
        out_channels = int(channels * width)
        factor = expansion if index else 1
        group = [InvertedResidual(in_channels, out_channels, stride, factor)]
        group += [InvertedResidual(out_channels, out_channels, 1, factor) for _ in range(count - 1)]
        groups.append(nn.Sequential(*group))
        in_channels = out_channels
    return groups


def _initialise_head(classifier: nn.Sequential) -> None:
    linear = classifier[0]
    assert isinstance(linear, nn.Linear)
    initialise_classifier(linear)


def _check(width: float) -> None:
    if width * STAGES[0][0] < 1:
        raise ConfigError(f"width={width:g} leaves no channels: use at least {1 / STAGES[0][0]:g}.")
