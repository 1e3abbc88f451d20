"""Changes of colour as PIL's `ImageEnhance` and `ImageOps.autocontrast`, which timm uses.

Functions and arguments as in `colours`, which follows torchvision: PIL rounds grey values and the
mean to whole numbers, and blends in another order. Results equal PIL's bit for bit.
"""

import torch
from torch import Tensor

from kdrun.data.augment.colours import smoothed
from kdrun.data.loaders.fitted import grey


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(torch.zeros_like(pixels[:, :1]), pixels, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; grey images stay."""
    return pixels if pixels.shape[1] == 1 else _blend(grey(pixels), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the rounded mean of the grey image."""
    values = pixels if pixels.shape[1] == 1 else grey(pixels)
    total = values.flatten(1).sum(1, dtype=torch.int64).double()
    mean = (total / values[0].numel() + 0.5).floor()
    return _blend(mean.view(-1, 1, 1, 1), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image; the outermost pixels stay."""
    return _blend(smoothed(pixels), pixels, factor)


def autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    values = pixels.double()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    scale = torch.where(high > low, 255.0 / (high - low), 1.0)
    offset = torch.where(high > low, -low * scale, 0.0)
    return (values * scale + offset).clamp_(0, 255).to(torch.uint8)


def _blend(start: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """start + factor · (pixel - start), in float32, truncated."""
    first = start.float()
    step = (pixels.float() - first) * factor.to(torch.float32).view(-1, 1, 1, 1)
    return (first + step).clamp_(0, 255).to(torch.uint8)
