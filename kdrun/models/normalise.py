"""Convert normalised images to the normalisation and channels that a network expects."""

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.types import Normalisation

# Rec. 601, the weights of red, green and blue in PIL's `convert("L")`.
LUMA = (0.299, 0.587, 0.114)
COLOURS = 3


class Renormalise(nn.Module):
    """Convert images normalised with `source` to images normalised with `target`.

    `[B, C, H, W]` → `[B, C', H, W]`. With source means m and deviations s, and target ones m' and
    s', per channel: x' = (x·s + m - m') / s'. Grey images become colour by repeating the channel;
    colour images become grey by their luma 0.299 R + 0.587 G + 0.114 B, as in PIL's `convert("L")`
    before rounding. Not part of the state dict.
    Raises ConfigError for any other change of the number of channels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, source: Normalisation, target: Normalisation) -> None:
        super().__init__()
        scale, shift = _scale_and_shift(source, target)
        self.to_grey = len(source.mean) == COLOURS and len(target.mean) == 1
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scaled = images * self.scale.to(images.dtype)
        if self.to_grey:
            scaled = scaled.sum(dim=1, keepdim=True)
        return scaled + self.shift.to(images.dtype)


def can_convert(source: int, target: int) -> bool:
    """Whether images of `source` channels can become images of `target` channels."""
    return source == target or {source, target} == {1, COLOURS}


def _scale_and_shift(source: Normalisation, target: Normalisation) -> tuple[Tensor, Tensor]:
    """(scale `[C or C', 1, 1]`, shift `[C', 1, 1]`), computed in float64, stored in float32."""
    if not can_convert(len(source.mean), len(target.mean)):
        raise ConfigError(
            f"The network was trained on images with {len(target.mean)} channels, but these have "
            f"{len(source.mean)}: choose a network for {len(source.mean)} channels."
        )
    source_mean, source_std, target_mean, target_std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (source.mean, source.std, target.mean, target.std)
    )
    if len(source.mean) == COLOURS and len(target.mean) == 1:
        luma = torch.tensor(LUMA, dtype=torch.float64).view(-1, 1, 1)
        scale = luma * source_std / target_std
        shift = ((luma * source_mean).sum(dim=0, keepdim=True) - target_mean) / target_std
    else:  # a single source channel broadcasts to all target channels
        scale = source_std / target_std
        shift = (source_mean - target_mean) / target_std
    return scale.float(), shift.float()
