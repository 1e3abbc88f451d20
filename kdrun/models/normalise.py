"""From the loader's normalisation constants to those a network was trained with."""

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.types import Normalisation


class Renormalise(nn.Module):
    """Images normalised with `source` become images normalised with `target`.

    `[B, C, H, W]` → the same shape. With source means m and deviations s, and target ones m' and
    s', per channel: x' = (x·s + m - m') / s'. Nothing is saved in a state dict.
    Raises ConfigError when the two are for different numbers of channels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, source: Normalisation, target: Normalisation) -> None:
        super().__init__()
        scale, shift = _scale_and_shift(source, target)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale.to(images.dtype) + self.shift.to(images.dtype)


def _scale_and_shift(source: Normalisation, target: Normalisation) -> tuple[Tensor, Tensor]:
    """Two `[C, 1, 1]` tensors, computed in float64 and kept in float32."""
    if len(source.mean) != len(target.mean):
        raise ConfigError(
            f"The network was trained on images of {len(target.mean)} channels, these have "
            f"{len(source.mean)}: choose a network for {len(source.mean)}."
        )
    source_mean, source_std, target_mean, target_std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (source.mean, source.std, target.mean, target.std)
    )
    scale = source_std / target_std
    shift = (source_mean - target_mean) / target_std
    return scale.float(), shift.float()
