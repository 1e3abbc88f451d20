"""From stored images to augmented, normalised ones."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, JitterConfig
from kdrun.data.augment import crops
from kdrun.data.augment.boxes import CROP_NUMBERS, crop_boxes
from kdrun.data.augment.erasing import erase
from kdrun.data.augment.geometry import resized_crop
from kdrun.data.augment.mixing import Mixing, mix
from kdrun.data.augment.policies import (
    Step,
    draw,
    jitter_steps,
    number_count,
    run,
    uses_bicubic,
)
from kdrun.data.augment.random_numbers import uniform
from kdrun.data.augment.views import EpochViews, ImageViews, Plan
from kdrun.data.cropped import centre
from kdrun.data.loaders.resident import ResidentImages
from kdrun.errors import ConfigError

PLAIN = AugmentConfig()
NO_JITTER = JitterConfig()
Normalise = Callable[[Tensor], Tensor]
PartnerImages = Callable[[Tensor, ImageViews], Tensor]  # (positions [B], their views) -> images


class Rendering:
    """Training images as one network sees them: augmented by a plan, normalised, mixed.

    Every value depends on its own image, and on its partner's where images are mixed, but not on
    the batch: an image has the same bits in any.
    size: (height, width) of the network's images. stored: the resident images; None where they are
    streamed. mean: of the normalisation, per channel; its colour fills what timm's moves uncover.
    """

    def __init__(
        self,
        plan: Plan,
        size: tuple[int, int],
        normalise: Normalise,
        stored: ResidentImages | None,
        device: torch.device,
        mean: Sequence[float],
    ) -> None:
        self.plan = plan
        self.size = size
        self.normalise = normalise
        self.stored = stored
        self.device = device
        self.mean = mean
        self._epoch: tuple[int, EpochViews] | None = None

    def views(self, epoch: int) -> EpochViews:
        """The views of all images in `epoch`, on the CPU; the most recent epoch is cached."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self.plan.views(epoch))
        return self._epoch[1]

    def resident(self, index: Tensor, chosen: ImageViews) -> Tensor:
        """Resident images at `index` `[B]` on the device, normalised; crops on the device."""
        return self._mixed(self._resident(index, chosen), chosen, self._resident_partners)

    def streamed(
        self, pixels: Tensor, chosen: ImageViews, partner_pixels: Tensor | None = None
    ) -> Tensor:
        """Streamed images `[B, C, H, W]` on the device, normalised; crops on the device.

        partner_pixels: of the images at `partners(...)`.
        """

        def partner_images(partner: Tensor, partner_views: ImageViews) -> Tensor:
            assert partner_pixels is not None
            return self._streamed(partner_pixels, partner_views)

        return self._mixed(self._streamed(pixels, chosen), chosen, partner_images)

    def partners(self, number: int, index: Tensor) -> Tensor:
        """Positions on the CPU of the images mixed into those at `index` `[B]`; at most B.

        number: of the views, the epoch modulo `augment.cycle`.
        """
        mixing = self.mixing(number, index)
        return index[:0] if mixing is None else mixing.partner[mixing.rows()]

    def mixing(self, number: int, index: Tensor) -> Mixing | None:
        """How the images at `index` `[B]` (on the CPU) are mixed; None: they are not."""
        return self.plan.mixing(number, index, self.size)

    def _mixed(self, images: Tensor, chosen: ImageViews, partner_images: PartnerImages) -> Tensor:
        mixing = self.mixing(chosen.number, chosen.index)
        rows = None if mixing is None else mixing.rows()
        if mixing is None or rows is None or not len(rows):
            return images
        partner = mixing.partner[rows]
        partners = partner_images(partner, chosen.of(partner))
        if len(rows) == len(images):
            return mix(images, partners, mixing)
        places = rows.to(images.device)
        images[places] = mix(images[places], partners, mixing.select(rows))
        return images

    def _resident_partners(self, partner: Tensor, chosen: ImageViews) -> Tensor:
        return self._resident(partner.to(self.device), chosen)

    def _resident(self, index: Tensor, chosen: ImageViews) -> Tensor:
        assert self.stored is not None
        return self._finish(self.stored.take(index, chosen.crops), chosen)

    def _streamed(self, pixels: Tensor, chosen: ImageViews) -> Tensor:
        return self._finish(crops.apply(pixels, chosen.crops, storage(self.plan.augment)), chosen)

    def _finish(self, pixels: Tensor, chosen: ImageViews) -> Tensor:
        """Everything after the padded crop and its flip: resized crop, policy, jitter, erasing."""
        if self.plan.fixed:
            return self.normalise(centre(pixels, self.size))
        augment = self.plan.augment
        if augment.crop == "resized":
            pixels = self._flipped(self._crops(pixels, chosen), chosen)
        pixels = run(pixels, self._steps(pixels, chosen))
        images = self.normalise(pixels)
        if augment.erasing.prob:
            seed = self.plan.seed
            images = erase(images, augment.erasing, seed, chosen.number, chosen.index)
        return images

    def _draws(self, name: str, chosen: ImageViews, count: int) -> Tensor:
        return uniform(self.plan.seed, (name, chosen.number), chosen.index, count)

    def _crops(self, pixels: Tensor, chosen: ImageViews) -> Tensor:
        height, width = pixels.shape[2:]
        draws = self._draws("crop", chosen, CROP_NUMBERS + 1)
        augment = self.plan.augment
        boxes = crop_boxes(draws[:, :-1], (height, width), augment.scale, augment.ratio)
        cubic = uses_bicubic(augment.interpolation, draws[:, -1])
        return resized_crop(pixels, boxes, self.size, cubic)

    def _flipped(self, pixels: Tensor, chosen: ImageViews) -> Tensor:
        if not self.plan.augment.flip:
            return pixels
        return crops.mirrored(pixels, chosen.crops.flip)

    def _steps(self, pixels: Tensor, chosen: ImageViews) -> list[Step]:
        augment = self.plan.augment
        height, width = pixels.shape[2:]
        numbers = self._draws(self.plan.policy_stream, chosen, number_count(augment))
        steps = draw(augment, numbers, (height, width), fill_colour(self.mean))
        if augment.color_jitter != NO_JITTER:
            steps += jitter_steps(augment.color_jitter, self._draws("jitter", chosen, 8))
        return steps


def fill_colour(mean: Sequence[float]) -> tuple[int, ...]:
    """The mean as 8-bit pixels, as timm's `create_transform` fills."""
    return tuple(min(255, max(0, round(255 * value))) for value in mean)


def storage(augment: AugmentConfig) -> AugmentConfig:
    """What resident images are stored for: padded crops and flips; none before a resized crop."""
    return PLAIN if augment.crop == "resized" else augment


def check_pixels(augment: AugmentConfig, pixel_type: str, where: str = "augment") -> None:
    """Raise ConfigError for policies and jitter on stored values that are no 8-bit pixels.

    pixel_type: uint8 | float32. where: name of the augmentation in settings.
    """
    if pixel_type == "uint8":
        return
    settings = []
    if augment.policy != "none":
        settings.append(f"{where}.policy={augment.policy}")
    if augment.strong not in (None, "none"):
        settings.append(f"{where}.strong={augment.strong}")
    if augment.color_jitter != NO_JITTER:
        settings.append(f"{where}.color_jitter")
    if settings:
        raise ConfigError(
            f"{' and '.join(settings)} changes 8-bit pixels, and this data set stores "
            f"{pixel_type} values: leave it out (crops, flips, erasing and mixing work on any "
            "values)."
        )
