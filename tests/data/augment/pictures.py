"""Pictures for comparisons of augmentation operations with their libraries."""

import torch
from torch import Tensor


def images(shape: tuple[int, ...], count: int) -> Tensor:
    """uint8 `[count, *shape]`: noise, low contrast, one colour, a gradient, more noise."""
    pixels = torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(1))
    pixels[1] = pixels[1] // 3 + 60
    pixels[2] = 77
    pixels[3] = torch.arange(pixels[3].numel()).view(shape) % 256
    return pixels.to(torch.uint8)
