"""A strongly augmented view of a batch, for losses that compare outputs across views."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.types import Batch

MAX_SHIFT = 0.25  # of the image's side
MAX_ANGLE = 0.5  # radians
MIN_SCALE, MAX_SCALE = 0.75, 1.25
MAX_BRIGHTNESS = 0.5  # in standard deviations of the normalised pixels
MIN_CONTRAST, MAX_CONTRAST = 0.5, 1.5
HOLE = 0.5  # side of the erased square, as a share of the image's side


def strong_view_of(batch: Batch) -> Tensor:
    """The second view of a batch: the loader's (`augment.strong`), or `strong_view`."""
    return strong_view(batch.images) if batch.strong_images is None else batch.strong_images


def strong_view(images: Tensor) -> Tensor:
    """Randomly rotate, scale, shift, re-light, erase and flip normalised images `[B, C, H, W]`.

    Draws per image from the global CPU generator, so that a resumed run draws the same numbers.
    The default, in place of RandAugment (`augment.strong=randaugment`).
    """
    batch, _, height, width = images.shape
    draw = torch.rand(batch, 9).to(images.device, images.dtype)
    angle = (2 * draw[:, 0] - 1) * MAX_ANGLE
    scale = MIN_SCALE + draw[:, 1] * (MAX_SCALE - MIN_SCALE)
    shift = (2 * draw[:, 2:4] - 1) * 2 * MAX_SHIFT
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    matrix = torch.stack((cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]), dim=1).view(
        batch, 2, 3
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = MIN_CONTRAST + draw[:, 4] * (MAX_CONTRAST - MIN_CONTRAST)
    brightness = (2 * draw[:, 5] - 1) * MAX_BRIGHTNESS
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    relit = (moved - mean) * contrast.view(-1, 1, 1, 1) + mean + brightness.view(-1, 1, 1, 1)
    rows = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    top = (draw[:, 6] * height).view(-1, 1, 1, 1)
    left = (draw[:, 7] * width).view(-1, 1, 1, 1)
    hole = ((rows - top).abs() < HOLE * height / 2) & ((columns - left).abs() < HOLE * width / 2)
    erased = torch.where(hole, torch.zeros_like(relit), relit)
    return torch.where((draw[:, 8] < 0.5).view(-1, 1, 1, 1), erased.flip(3), erased)
