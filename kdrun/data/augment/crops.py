"""Random crops and flips as integers, drawn once per epoch and applied to whole batches.

Draws are made on the CPU from a seed, so an image looks the same in an epoch on every device and
however it is read.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kdrun.config.schema import AugmentConfig
from kdrun.seeds import generator


@dataclass(frozen=True)
class Crops:
    """The crop and flip of each image in one epoch.

    dy, dx: `[N]` int64, row and column of the crop's corner in the padded image.
    flip: `[N]` int64, 1 for a horizontal flip.
    """

    dy: Tensor
    dx: Tensor
    flip: Tensor

    def select(self, index: Tensor) -> "Crops":
        """The crops of the images at `index`."""
        return Crops(*(part.index_select(0, index) for part in (self.dy, self.dx, self.flip)))

    def to(self, device: torch.device) -> "Crops":
        """The same crops on `device`."""
        return Crops(self.dy.to(device), self.dx.to(device), self.flip.to(device))


def draw(num_images: int, augment: AugmentConfig, seed: int, epoch: int) -> Crops:
    """The crops of all images in `epoch`: a pure function of its arguments."""
    stream = generator(seed, "augment", epoch)
    offsets = 2 * augment.crop_padding + 1
    dy = torch.randint(offsets, (num_images,), generator=stream)
    dx = torch.randint(offsets, (num_images,), generator=stream)
    flip = torch.randint(2, (num_images,), generator=stream)
    return Crops(dy, dx, flip if augment.flip else torch.zeros_like(flip))


def centre(num_images: int, augment: AugmentConfig) -> Crops:
    """The plain view of every image: no shift, no flip."""
    offset = torch.full((num_images,), augment.crop_padding)
    return Crops(offset, offset, torch.zeros_like(offset))


def pad(images: Tensor, padding: int, mode: str = "constant") -> Tensor:
    """`[N, C, H, W]` with a border, `[N, C, H + 2·padding, W + 2·padding]`.

    mode: constant: black; reflect: mirrored without repeating the edge.
    """
    if not padding:
        return images
    if mode == "constant":
        return functional.pad(images, (padding,) * 4)
    rows, columns = (reflected(side, padding).to(images.device) for side in images.shape[2:])
    return images[:, :, rows][:, :, :, columns]


def reflected(side: int, padding: int) -> Tensor:
    """Source positions of a side with reflected borders: 2 1 0 1 2 3 2 1 for side 4."""
    period = max(2 * (side - 1), 1)
    place = torch.arange(-padding, side + padding) % period
    return torch.minimum(place, period - place) if side > 1 else torch.zeros_like(place)


def crop(padded: Tensor, rows: Tensor, crops: Crops, size: tuple[int, int]) -> Tensor:
    """Crop image `rows[b]` of `padded` `[M, C, H', W']` at `crops`, without flipping.

    Returns `[B, C, *size]`: one gather through a strided view of every possible crop.
    """
    height, width = size
    if padded.shape[2:] == (height, width):
        return padded.index_select(0, rows)  # much faster than padded[rows]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[rows, :, crops.dy, crops.dx]


def apply(images: Tensor, crops: Crops, augment: AugmentConfig) -> Tensor:
    """Pad, crop and flip a batch `[B, C, H, W]`."""
    size = images.shape[2], images.shape[3]
    if augment.crop_padding:
        rows = torch.arange(len(images), device=images.device)
        padded = pad(images, augment.crop_padding, augment.padding_mode)
        images = crop(padded, rows, crops, size)
    return mirrored(images, crops.flip) if augment.flip else images


def mirrored(images: Tensor, flip: Tensor) -> Tensor:
    """Images `[B, C, H, W]`, left and right swapped where `flip` `[B]` is 1."""
    if images.element_size() > 1:
        return torch.where(flip.bool().view(-1, 1, 1, 1), images.flip(3), images)
    # For bytes, copying whole images is three to five times as fast as a choice per pixel.
    rows = torch.arange(len(images), device=images.device) + flip * len(images)
    return torch.cat([images, images.flip(3)]).index_select(0, rows)
