"""VGG networks for small images: Simonyan and Zisserman (arXiv 1409.1556), with batch
normalisation and a single linear layer after global average pooling.

Parameter names and shapes as in `kdrun.models.resnet`.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.layers import initialise_classifier, initialise_fan_out, stage_taps
from kdrun.ranges import Channels, ranged

STAGES = 5
LAST_POOL_FROM = 64  # pixels of height; below, the last two stages share one size


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with max-pooling in between.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`; H and W at least 8.
    widths: channels of the convolutions of each of the five stages. Images with a height below 64
    are pooled three times (the last two stages work at H/8), others four times.
    Taps: `stem` (the first stage), `stage1..4` (the others, after the ReLU), `stage1..4_pre`
    (before it), `embedding`.
    """

    @ranged
    def __init__(
        self, num_classes: int, in_channels: int = 3, *, widths: list[list[Channels]]
    ) -> None:
        super().__init__()
        _check(widths)
        inputs = [in_channels, *(stage[-1] for stage in widths[:-1])]
        self.block0 = _stage(inputs[0], widths[0])
        self.block1 = _stage(inputs[1], widths[1])
        self.block2 = _stage(inputs[2], widths[2])
        self.block3 = _stage(inputs[3], widths[3])
        self.block4 = _stage(inputs[4], widths[4])
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(STAGES))
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1][-1], num_classes)
        self.taps = stage_taps(
            stages=[f"relus.{i}" for i in range(1, STAGES)],
            pre=[f"block{i}" for i in range(1, STAGES)],
            classifier="classifier",
            stem="relus.0",
        )
        initialise_fan_out(self)
        initialise_classifier(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relus[0](self.block0(images))
        hidden = self.relus[1](self.block1(self.pool(hidden)))
        hidden = self.relus[2](self.block2(self.pool(hidden)))
        hidden = self.relus[3](self.block3(self.pool(hidden)))
        if images.shape[2] >= LAST_POOL_FROM:
            hidden = self.pool(hidden)
        hidden = self.relus[4](self.block4(hidden))
        logits: Tensor = self.classifier(self.average(hidden).flatten(1))
        return logits


def _check(widths: Sequence[Sequence[int]]) -> None:
    if len(widths) != STAGES or not all(widths):
        raise ConfigError(
            "widths must list the channels of the convolutions in each of 5 stages, "
            "e.g. [[64],[128],[256],[512],[512]]."
        )


def _stage(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU per width, without the last ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        in_channels = width
    return nn.Sequential(*layers[:-1])
