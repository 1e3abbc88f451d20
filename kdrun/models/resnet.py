"""Residual networks for small images: He et al. (arXiv 1512.03385), section 4.2.

Parameter names and shapes follow the CIFAR networks of Tian, Krishnan and Isola, Contrastive
Representation Distillation (arXiv 1910.10699), so that its published weights load.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.models.layers import (
    DropPath,
    conv1x1,
    conv3x3,
    drop_path_rates,
    initialise_fan_out,
    stage_taps,
)
from kdrun.ranges import Channels, Layers, Share, ranged

PROJECTION, PAD = "projection", "pad"


class PadShortcut(nn.Module):
    """Strided subsampling with zero-padded channels: the paper's option A.

    `[B, in, H, W]` → `[B, out, H/stride, W/stride]`, without parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, images: Tensor) -> Tensor:
        subsampled = images[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[B, in, H, W]` → `[B, out, H/stride, W/stride]`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: str = PROJECTION,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        make = PadShortcut if shortcut == PAD else _projection
        self.downsample = None if same else make(in_channels, out_channels, stride)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.relu2 = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        shortcut = images if self.downsample is None else self.downsample(images)
        hidden = self.relu1(self.bn1(self.conv1(images)))
        branch = self.bn2(self.conv2(hidden))
        if self.drop_path is not None:
            branch = self.drop_path(branch)
        output: Tensor = self.relu2(branch + shortcut)
        return output


class ResNet(nn.Module):
    """Three stages of residual blocks at the full, half and quarter size.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    depth: 6n + 2 for n blocks in each stage.
    widths: channels of the first convolution and of the three stages.
    shortcut: projection | pad, where a block changes the size (options B and A of the paper): a
        1x1 convolution with batch normalisation, or zero channels, which have no parameters.
    drop_path: share of images that skip the last block in training; it rises linearly from 0.
    Taps: `stem`, `stage1..3` (after the ReLU), `stage1..3_pre` (before it), `embedding`.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        depth: Layers,
        widths: list[Channels],
        shortcut: str = PROJECTION,
        drop_path: Share = 0.0,
    ) -> None:
        super().__init__()
        blocks = _blocks_per_stage(depth, widths)
        _check_shortcut(shortcut, widths)
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        rates = drop_path_rates(drop_path, 3 * blocks)
        self.layer1 = _stage(widths[0], widths[1], rates[:blocks], 1, shortcut)
        self.layer2 = _stage(widths[1], widths[2], rates[blocks : 2 * blocks], 2, shortcut)
        self.layer3 = _stage(widths[2], widths[3], rates[2 * blocks :], 2, shortcut)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        self.taps = stage_taps(
            stages=["layer1", "layer2", "layer3"],
            pre=[f"layer{i}.{blocks - 1}.relu2:in" for i in (1, 2, 3)],
            classifier="fc",
            stem="relu",
        )
        initialise_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.fc(self.average(hidden).flatten(1))
        return logits


def _blocks_per_stage(depth: int, widths: list[int]) -> int:
    if depth < 8 or (depth - 2) % 6:
        raise ConfigError(f"depth={depth} does not fit a ResNet: use 6n + 2, e.g. 8, 14, 20 or 56.")
    if len(widths) != 4:
        raise ConfigError(
            f"widths={list(widths)} must be four numbers: the first convolution's channels and the "
            "three stages', e.g. [16,16,32,64]."
        )
    return (depth - 2) // 6


def _check_shortcut(shortcut: str, widths: list[int]) -> None:
    if shortcut not in (PROJECTION, PAD):
        raise ConfigError(f"shortcut={shortcut} is not one of {PROJECTION}, {PAD}.")
    if shortcut == PAD and list(widths) != sorted(widths):
        raise ConfigError(
            f"shortcut={PAD} adds channels and cannot take any away: widths={list(widths)} must "
            f"not fall, or set shortcut={PROJECTION}."
        )


def _stage(
    in_channels: int, out_channels: int, rates: list[float], stride: int, shortcut: str
) -> nn.Sequential:
    """One block per drop-path rate."""
    first = BasicBlock(in_channels, out_channels, stride, shortcut, rates[0])
    rest = (BasicBlock(out_channels, out_channels, 1, drop_path=rate) for rate in rates[1:])
    return nn.Sequential(first, *rest)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
