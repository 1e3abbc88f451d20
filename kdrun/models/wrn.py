"""Wide residual networks: Zagoruyko and Komodakis (arXiv 1605.07146).

Parameter names and shapes as in `kdrun.models.resnet`.
"""

from collections import OrderedDict

from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import conv1x1, conv3x3, initialise_fan_out, stage_taps
from kdrun.ranges import Channels, Layers, Share, ranged


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU, and a shortcut.

    `[B, in, H, W]` → `[B, out, H/stride, W/stride]`. If the number of channels changes, the
    shortcut projects the activated input; otherwise it is the identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        same = in_channels == out_channels
        self.convShortcut = None if same else conv1x1(in_channels, out_channels, stride)

    def forward(self, images: Tensor) -> Tensor:
        active = self.relu1(self.bn1(images))
        shortcut = images if self.convShortcut is None else self.convShortcut(active)
        hidden = self.relu2(self.bn2(self.conv1(active)))
        output: Tensor = self.conv2(self.dropout(hidden)) + shortcut
        return output


class WideResNet(nn.Module):
    """Three stages of pre-activation blocks at the full, half and quarter size.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    depth: 6n + 4 for n blocks in each stage.
    widen_factor: the stages have 16, 32 and 64 times this many channels.
    dropout: probability of zeroing a value between the two convolutions of a block.
    Taps: `stem` (the first convolution), `stage1..3`, `stage1..3_pre`, `embedding`. A stage is the
    sum that its last block puts out, which no ReLU has seen; `stageI_pre` is that sum after the
    normalisation that follows it, the input of the next ReLU.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        depth: Layers,
        widen_factor: Channels,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        blocks = _blocks_per_stage(depth, widen_factor)
        width = 16 * widen_factor
        self.conv1 = conv3x3(in_channels, 16)
        self.block1 = _stage(16, width, blocks, 1, dropout)
        self.block2 = _stage(width, 2 * width, blocks, 2, dropout)
        self.block3 = _stage(2 * width, 4 * width, blocks, 2, dropout)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        self.taps = stage_taps(
            stages=["block1", "block2", "block3"],
            pre=["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"],
            classifier="fc",
            stem="conv1",
        )
        initialise_fan_out(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.block3(self.block2(self.block1(self.conv1(images))))
        hidden = self.average(self.relu(self.bn1(hidden)))
        logits: Tensor = self.fc(hidden.flatten(1))
        return logits


def _blocks_per_stage(depth: int, widen_factor: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        raise ConfigError(f"depth={depth} does not fit a WRN: use 6n + 4, e.g. 10, 16, 28 or 40.")
    return (depth - 4) // 6


def _stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, dropout: float
) -> nn.Sequential:
    layer = nn.Sequential(
        PreActivationBlock(in_channels, out_channels, stride, dropout),
        *(PreActivationBlock(out_channels, out_channels, 1, dropout) for _ in range(blocks - 1)),
    )
    return nn.Sequential(OrderedDict(layer=layer))
