"""Fully connected networks, as in Hinton, Vinyals and Dean (arXiv 1503.02531), section 3."""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from kdrun.models.dropout import Dropout
from kdrun.models.layers import stage_taps
from kdrun.ranges import Channels, Share, ranged


class MLP(nn.Module):
    """Hidden layers of rectified linear units on the flattened image.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`.
    image_size: (H, W) in pixels; the first layer's width depends on it.
    hidden: units of each hidden layer; an empty list is softmax regression.
    dropout, input_dropout: probability of zeroing a hidden unit, a pixel.
    Taps: `stageI` `[B, hidden[I-1]]` (before dropout), `stageI_pre`, `embedding`.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        hidden: list[Channels],
        dropout: Share = 0.0,
        input_dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        widths = [in_channels * image_size[0] * image_size[1], *hidden]
        self.flatten = nn.Flatten()
        self.input_dropout = Dropout(input_dropout)
        self.layers = nn.ModuleList(_layer(a, b, dropout) for a, b in pairwise(widths))
        self.fc = nn.Linear(widths[-1], num_classes)
        self.taps = stage_taps(
            stages=[f"layers.{i}.relu" for i in range(len(hidden))],
            pre=[f"layers.{i}.linear" for i in range(len(hidden))],
            classifier="fc",
        )

    def forward(self, images: Tensor) -> Tensor:
        units = self.input_dropout(self.flatten(images))
        for layer in self.layers:
            units = layer(units)
        logits: Tensor = self.fc(units)
        return logits


def _layer(in_units: int, out_units: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(linear=nn.Linear(in_units, out_units), relu=nn.ReLU(), dropout=Dropout(dropout))
    )
