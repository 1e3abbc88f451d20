"""Exits: from the features of one of the student's stages to class logits, for training only.

The exit has the form of its stage: separable convolutions behind a map, transformer blocks behind
tokens, linear layers behind units.
"""

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.shapes import token_grid
from kdrun.models.vit import Block

SMALLEST_GRID = 7  # tokens per side below which none are merged
HEADS = 4
INITIAL_STD = 0.02


def make_exit(features: Tensor, width: int, later: int, classes: int, name: str) -> nn.Module:
    """An exit from features `[B, C, H, W]`, `[B, N, D]` or `[B, D]` to logits `[B, classes]`.

    width: of its last features. later: number of the student's stages behind this one.
    name: of the tap, for errors. Raises ConfigError for other shapes.
    """
    exit_: nn.Module
    if features.dim() == 4:
        exit_ = convolutional_exit(features.shape[1], width, later, classes)
    elif features.dim() == 3:
        exit_ = TransformerExit(features, later, classes, name)
    elif features.dim() == 2:
        exit_ = linear_exit(features.shape[1], width, later, classes)
    else:
        raise ConfigError(
            f"loss=ofa: the student's {name} is {list(features.shape)}; an exit needs a map "
            "[B, C, H, W], tokens [B, N, D] or units [B, D]. Choose other taps (loss.ofa.taps)."
        )
    exit_.apply(_initialise)
    return exit_


def convolutional_exit(channels: int, width: int, later: int, classes: int) -> nn.Sequential:
    """A separable convolution of stride 2 per later stage, the mean over space, a classifier.

    Each doubles the channels, the last one makes them `width`. The last stage's exit has a 1×1
    convolution instead.
    """
    layers: list[nn.Module] = []
    for number in range(later):
        out = width if number == later - 1 else 2 * channels
        layers.append(separable_convolutions(channels, out))
        channels = out
    if not later:
        layers.append(nn.Conv2d(channels, width, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def separable_convolutions(channels: int, out: int) -> nn.Sequential:
    """Two depthwise-separable 3×3 convolutions with BN and ReLU, the first of stride 2."""
    layers: list[nn.Module] = []
    for stride, width in ((2, channels), (1, out)):
        layers += [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            nn.Conv2d(channels, width, 1, bias=False),
            AdapterNorm(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def linear_exit(units: int, width: int, later: int, classes: int) -> nn.Sequential:
    """A hidden layer of `width` units per later stage, at least one, and a classifier."""
    layers: list[nn.Module] = []
    for _ in range(max(later, 1)):
        layers += [nn.Linear(units, width), nn.ReLU()]
        units = width
    return nn.Sequential(*layers, nn.Linear(width, classes))


class TransformerExit(nn.Module):
    """Transformer blocks behind tokens `[B, N, D]`, then a classifier of the first leading token.

    One block per later stage, at least one. Patch tokens are merged, four to one, as long as 7×7
    or more remain. Without leading tokens the classifier reads the mean token.
    """

    def __init__(self, tokens: Tensor, later: int, classes: int, name: str) -> None:
        super().__init__()
        width = tokens.shape[2]
        self.leading, side = token_grid(tokens, f"the student's {name}")
        merges = []
        while side % 2 == 0 and side // 2 >= SMALLEST_GRID:
            merges.append(PatchMerging(width, side))
            side //= 2
        self.merging = nn.Sequential(*merges)
        heads = next(count for count in (HEADS, 2, 1) if width % count == 0)
        self.blocks = nn.Sequential(
            *(Block(width, heads, 4 * width, 0.0) for _ in range(max(later, 1)))
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, classes]`."""
        leading, patches = tokens[:, : self.leading], tokens[:, self.leading :]
        tokens = self.blocks(torch.cat((leading, self.merging(patches)), dim=1))
        feature = tokens[:, 0] if self.leading else tokens.mean(dim=1)
        logits: Tensor = self.classifier(feature)
        return logits


class PatchMerging(nn.Module):
    """Four neighbouring tokens to one: `[B, side², D]` → `[B, side²/4, D]`."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        half = self.side // 2
        grid = tokens.unflatten(1, (half, 2, half, 2))  # rows, row in pair, columns, column in pair
        merged = grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
        return nn.functional.gelu(self.reduction(self.norm(merged)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
