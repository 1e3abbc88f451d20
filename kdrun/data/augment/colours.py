"""Changes of colour with a strength per image, as torchvision's `transforms.v2.functional`.

Each function takes pixels `[B, C, H, W]` uint8 (grey or colour) and a strength `[B]` float64, and
returns new pixels. The arithmetic is elementwise in float32 or in integers, so that a result
depends neither on the device nor on the other images of the batch.
"""

import importlib
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from kdrun.vision import repair_torchvision

GREY = (2989, 5870, 1140)  # torchvision's luma weights in 1/10,000


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """pixel · factor."""
    return _bytes(pixels.float() * _per_image(factor))


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; grey images stay."""
    return pixels if pixels.shape[1] == 1 else _blend(pixels, luma(pixels).float(), factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the grey image."""
    grey = pixels if pixels.shape[1] == 1 else luma(pixels)
    total = grey.flatten(1).sum(1, dtype=torch.int64)
    mean = total.to(torch.float32) / grey[0].numel()
    return _blend(pixels, mean.view(-1, 1, 1, 1), factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image; the outermost pixels stay."""
    change = smoothed(pixels).float().sub_(pixels) * _per_image(1 - factor)
    return _bytes(pixels.float() + change)


def smoothed(pixels: Tensor) -> Tensor:
    """Weighted means of 3 × 3 pixels, the middle one five times; the outermost pixels stay."""
    height, width = pixels.shape[2:]
    if height <= 2 or width <= 2:
        return pixels
    values = pixels.to(torch.int32)
    columns = values[:, :, :, :-2] + values[:, :, :, 1:-1] + values[:, :, :, 2:]
    total = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
    out = pixels.clone()
    # rounded; thirteenths have no ties
    out[:, :, 1:-1, 1:-1] = (total + 4 * values[:, :, 1:-1, 1:-1] + 6) // 13
    return out


def hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` of the circle; grey images stay."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (pixels.float() / 255).unbind(1)
    largest, smallest = pixels.float().amax(1) / 255, pixels.float().amin(1) / 255
    spread = largest - smallest
    scale = torch.where(spread == 0, torch.ones_like(spread), spread)
    sector = torch.where(
        largest == red,
        (green - blue) / scale,
        torch.where(largest == green, (blue - red) / scale + 2, (red - green) / scale + 4),
    )
    turned = sector + 6 * shift.to(torch.float32).view(-1, 1, 1)
    channels = []
    for offset in (5, 3, 1):
        place = torch.remainder(turned + offset, 6)
        part = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(largest - spread * part)
    return (torch.stack(channels, 1) * 255.999).clamp(0, 255).to(torch.uint8)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` bits."""
    mask = 256 - 2 ** (8 - bits.to(torch.int64))
    return (pixels.to(torch.int16) & _per_image(mask).to(torch.int16)).to(torch.uint8)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert pixels from `threshold` on, a share of 255."""
    limit = _per_image(255.0 * threshold)
    return torch.where(pixels.float() >= limit, 255 - pixels, pixels)


def solarize_add(pixels: Tensor, add: Tensor) -> Tensor:
    """Add to pixels below 128."""
    lighter = _bytes(pixels.float() + _per_image(add))
    return torch.where(pixels < 128, lighter, pixels)


def autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    stretched: Tensor = _library().autocontrast(pixels)
    return stretched


def equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """Equalize the histogram of each channel."""
    equal: Tensor = _library().equalize(pixels)
    return equal


def invert(pixels: Tensor, _: Tensor) -> Tensor:
    """255 - pixel."""
    return 255 - pixels


def grey(pixels: Tensor, _: Tensor) -> Tensor:
    """Grey values in every channel."""
    return pixels if pixels.shape[1] == 1 else luma(pixels).expand_as(pixels).clone()


def luma(pixels: Tensor) -> Tensor:
    """`[B, 1, H, W]` grey values of colour pixels, rounded down."""
    values = pixels.to(torch.int32)
    weighted = sum(w * values[:, c : c + 1] for c, w in enumerate(GREY))
    assert isinstance(weighted, Tensor)
    return (weighted // 10_000).to(torch.uint8)


@cache
def _library() -> ModuleType:
    """torchvision's functions, for what needs no strength per image."""
    repair_torchvision()
    return importlib.import_module("torchvision.transforms.v2.functional")


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """pixel · factor + other · (1 - factor)."""
    mixed = pixels.float() * _per_image(factor)
    return _bytes(mixed + other * _per_image(1 - factor))


def _bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def _per_image(strength: Tensor) -> Tensor:
    return strength.to(torch.float32).view(-1, 1, 1, 1)
