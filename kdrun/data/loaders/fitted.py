"""Convert stored images to the channels and size of a network."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.data.augment.pil_colours import grey
from kdrun.data.images import Images, LazyImages, Split, gather
from kdrun.types import InputInfo


class FittedImages(LazyImages):
    """Images `[N, C, H, W]` with other channels (grey ↔ colour) and size, converted on access.

    Grey is repeated; colour becomes luma as in PIL's `convert("L")`. Resizing is bilinear with
    antialiasing. uint8 pixels stay uint8.
    """

    def __init__(self, source: Images, channels: int, size: tuple[int, int]) -> None:
        self.source = source
        self.shape = (source.shape[0], channels, *size)
        self.dtype = source.dtype

    def gather(self, index: Tensor) -> Tensor:
        pixels = gather(self.source, index)
        channels, size = self.shape[1], self.shape[2:]
        if channels == 1 != pixels.shape[1]:
            pixels = grey(pixels)
        elif channels != pixels.shape[1]:
            pixels = pixels.expand(-1, channels, -1, -1)
        if tuple(pixels.shape[2:]) != size:
            resized = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
            pixels = resized.round().clamp(0, 255) if self.dtype == torch.uint8 else resized
        return pixels.to(self.dtype).contiguous()


def fitted(split: Split, info: InputInfo) -> Split:
    """The split with the channels and size of `info`; unchanged if they match."""
    if split.shape == (info.in_channels, *info.image_size):
        return split
    return replace(split, images=FittedImages(split.images, info.in_channels, info.image_size))
