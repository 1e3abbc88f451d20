"""Changes of colour as PIL's `ImageEnhance` and `ImageOps.autocontrast`, which timm uses.

Functions and arguments as in `colours`, which follows torchvision: PIL rounds grey values and the
mean to whole numbers, and blends in another order. Results equal PIL's bit for bit.
"""

import torch
from torch import Tensor

from kdrun.data.augment.colours import smoothed

# Arithmetic of PIL's `convert("L")`: Rec. 601 weights in 1/65536, rounded.
LUMA = (19595, 38470, 7471)


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


def grey(pixels: Tensor) -> Tensor:
    """`[B, 1, H, W]` luma of colour pixels, as PIL's `convert("L")`."""
    if pixels.dtype == torch.uint8:
        red, green, blue = pixels.int().split(1, dim=1)
        weighted = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        return (weighted + 0x8000) >> 16
    weights = torch.tensor(LUMA).view(1, -1, 1, 1) / 2**16
    return (pixels * weights).sum(1, keepdim=True)
