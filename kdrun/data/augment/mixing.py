"""Mixup and CutMix with a partner per image, as timm's `Mixup` in its mode `elem`.

mixup: Zhang et al. 2018, arXiv 1710.09412. CutMix: Yun et al. 2019, arXiv 1905.04899.

Partner, share and box of an image are pure functions of the seed, the image and the epoch modulo
`augment.cycle`. The partner is any other training image, in the view that it has in that epoch;
timm takes the partner from the same batch. Normalised images are mixed, which equals mixing pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig
from kdrun.data.augment.random_numbers import uniform

NUMBERS = 6  # random numbers per image
STREAM = "mixing"


@dataclass(frozen=True)
class Mixing:
    """How some images are mixed; all tensors are on the CPU.

    partner: `[B]` int64 positions of the images mixed in.
    share: `[B]` float32, λ: the share of the image itself, after CutMix's correction.
    box: `[B, 4]` int64 (top, bottom, left, right) of the pasted part, with CutMix.
    cut: `[B]` bool: CutMix instead of mixup.
    """

    partner: Tensor
    share: Tensor
    box: Tensor
    cut: Tensor

    def rows(self) -> Tensor:
        """Which images are mixed at all: their rows, ascending."""
        return (self.share < 1).nonzero().flatten()

    def select(self, rows: Tensor) -> "Mixing":
        """The mixing of some of the images."""
        return Mixing(self.partner[rows], self.share[rows], self.box[rows], self.cut[rows])


def draw_mixing(
    augment: AugmentConfig, seed: int, number: int, index: Tensor, num_images: int, size: Tensor
) -> Mixing:
    """The mixing of the images at `index` `[B]` (on the CPU) of `num_images`.

    number: the epoch modulo the cycle. size: (height, width) of the images, int64 `[2]`.
    """
    numbers = uniform(seed, (STREAM, number), index, NUMBERS)
    step = 1 + (numbers[:, 0] * (num_images - 1)).long()
    partner = (index + step) % num_images if num_images > 1 else index
    cut = _uses_cutmix(augment, numbers[:, 1])
    share = torch.ones(len(index), dtype=torch.float64)
    for kind, config in ((cut, augment.cutmix), (~cut, augment.mixup)):
        mixed = kind & (numbers[:, 2] < config.prob)
        if config.alpha > 0 and bool(mixed.any()):
            share[mixed] = _beta(numbers[mixed, 3], config.alpha)
    share = share.float()
    centre = (numbers[:, 4:] * size).long()
    box = cutmix_box(share, centre, size)
    corrected = torch.where(cut, corrected_share(box, size), share)
    return Mixing(partner, corrected, box, cut)


def cutmix_box(share: Tensor, centre: Tensor, size: Tensor) -> Tensor:
    """Boxes `[B, 4]` (top, bottom, left, right) of area 1 - λ, clipped at the image's border.

    share: `[B]` float32, λ. centre: `[B, 2]` (row, column). size: (height, width), int64 `[2]`.
    """
    sides = (size * (1 - share).sqrt()[:, None]).long()
    low = (centre - sides // 2).clamp(min=0)
    high = torch.minimum(centre + (sides + 1) // 2, size)
    return torch.stack((low[:, 0], high[:, 0], low[:, 1], high[:, 1]), dim=1)


def corrected_share(box: Tensor, size: Tensor) -> Tensor:
    """λ `[B]`, float32: what clipped boxes `[B, 4]` leave of the image itself."""
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    return (1 - area.double() / size.prod()).float()


def mix(images: Tensor, partners: Tensor, mixing: Mixing) -> Tensor:
    """Mix images and partners `[B, C, H, W]` in float; each value depends on its own pair alone."""
    height, width = images.shape[2:]
    share = mixing.share.to(images.device, images.dtype)[:, None, None]
    top, bottom, left, right = (
        side[:, None, None] for side in mixing.box.to(images.device).unbind(1)
    )
    rows = torch.arange(height, device=images.device)[None, :, None]
    columns = torch.arange(width, device=images.device)[None, None, :]
    pasted = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    cut = mixing.cut.to(images.device)[:, None, None]
    weight = torch.where(cut, (~pasted).to(images.dtype), share)[:, None]
    return images * weight + partners * (1 - weight)


def _uses_cutmix(augment: AugmentConfig, uniform: Tensor) -> Tensor:
    """`[B]` bool: CutMix where only it is set, or by `switch_prob` where both are."""
    if augment.mixup.alpha > 0 and augment.cutmix.alpha > 0:
        return uniform < augment.switch_prob
    return torch.full(uniform.shape, augment.cutmix.alpha > 0)


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha) by its inverse distribution function: float64 of uniform numbers."""
    from scipy.special import betaincinv  # slow to import, and only mixing needs it

    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy()))
