"""A plain convolutional network for small images."""

from collections import OrderedDict

from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import conv3x3, initialise_fan_out, stage_taps
from kdrun.ranges import Channels, ranged


class ConvNet(nn.Module):
    """One 3x3 convolution, batch normalisation and ReLU per stage, max-pooling between stages.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`. Stage i works at the input size
    divided by 2^(i-1), rounded up, so any size works; global average pooling precedes the
    classifier.
    widths: channels of each stage, at least one.
    Taps: `stageI`, `stageI_pre`, `embedding`.
    """

    @ranged
    def __init__(self, num_classes: int, in_channels: int, widths: list[Channels]) -> None:
        super().__init__()
        self.stages = _stages(in_channels, widths)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.taps = stage_taps(
            stages=[f"stages.{i}" for i in range(len(widths))],
            pre=[f"stages.{i}.bn" for i in range(len(widths))],
            classifier="fc",
        )
        initialise_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images
        for index, stage in enumerate(self.stages):
            hidden = stage(self.pool(hidden) if index else hidden)
        logits: Tensor = self.fc(self.average(hidden).flatten(1))
        return logits


def _stages(in_channels: int, widths: list[int]) -> nn.ModuleList:
    if not widths:
        raise ConfigError("widths=[] makes no network: give each stage's channels, e.g. [4,8].")
    inputs = [in_channels, *widths[:-1]]
    return nn.ModuleList(_stage(a, b) for a, b in zip(inputs, widths, strict=True))


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=conv3x3(in_channels, out_channels),
            bn=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(),
        )
    )
