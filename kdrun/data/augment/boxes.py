"""Random rectangles per image: those of RandomResizedCrop and of random erasing.

As torchvision's transforms: an area and an aspect ratio are drawn up to ten times until the
rectangle fits.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ATTEMPTS = 10
CROP_NUMBERS = 2 * ATTEMPTS + 2  # random numbers per image
ERASE_NUMBERS = 2 * ATTEMPTS + 3


def crop_boxes(
    uniform: Tensor, source: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]
) -> Tensor:
    """`[B, 4]` int64 (top, left, height, width) within `source` (height, width).

    If no attempt fits: the largest central rectangle whose aspect ratio is allowed.
    """
    height, width = source
    areas, aspects = _attempts(uniform, source, scale, ratio)
    widths, heights = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    h, w, some_fit = _first(fits, heights, widths)
    top = (uniform[:, -2] * (height - h + 1)).floor()
    left = (uniform[:, -1] * (width - w + 1)).floor()
    boxes = torch.stack((top, left, h, w), 1).long()
    return torch.where(some_fit.unsqueeze(1), boxes, torch.tensor(_central(source, ratio)))


def erase_boxes(
    uniform: Tensor,
    source: tuple[int, int],
    prob: float,
    scale: Sequence[float],
    ratio: Sequence[float],
) -> Tensor:
    """`[B, 4]` int64 as `crop_boxes`; height 0 where nothing is erased."""
    height, width = source
    areas, aspects = _attempts(uniform, source, scale, ratio)
    heights, widths = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    h, w, some_fit = _first((heights < height) & (widths < width), heights, widths)
    top = (uniform[:, -3] * (height - h + 1)).floor()
    left = (uniform[:, -2] * (width - w + 1)).floor()
    erased = some_fit & (uniform[:, -1] < prob)
    return torch.stack((top, left, h * erased, w), 1).long()


def _attempts(
    uniform: Tensor, source: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """(areas in pixels, aspect ratios), each `[B, ATTEMPTS]`."""
    areas = scale[0] + (scale[1] - scale[0]) * uniform[:, :ATTEMPTS]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspects = (low + (high - low) * uniform[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    return source[0] * source[1] * areas, aspects


def _first(fits: Tensor, heights: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(height, width, whether any fits) of the first attempt that fits, `[B]` each."""
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    some_fit = fits.any(1)
    return heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0], some_fit


def _central(source: tuple[int, int], ratio: Sequence[float]) -> list[int]:
    height, width = source
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]
