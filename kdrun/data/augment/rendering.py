"""From stored images to augmented, normalised ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig
from kdrun.data.augment.views import EpochViews, ImageViews, Plan
from kdrun.data.loaders import views
from kdrun.data.loaders.resident import ResidentImages

Normalise = Callable[[Tensor], Tensor]


class Rendering:
    """Training images as one network sees them: augmented by a plan, then normalised.

    Every value depends on its own image alone, so an image has the same bits in any batch.
    stored: the resident images; None where they are streamed.
    """

    def __init__(
        self, plan: Plan, normalise: Normalise, stored: ResidentImages | None, device: torch.device
    ) -> None:
        self.plan = plan
        self.normalise = normalise
        self.stored = stored
        self.device = device
        self._epoch: tuple[int, EpochViews] | None = None

    def views(self, epoch: int) -> EpochViews:
        """The views of all images in `epoch`, on the CPU; the most recent epoch is cached."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self.plan.views(epoch))
        return self._epoch[1]

    def resident(self, index: Tensor, chosen: ImageViews) -> Tensor:
        """Resident images at `index` `[B]` on the device, normalised; crops on the device."""
        assert self.stored is not None
        return self._finish(self.stored.take(index, chosen.crops), chosen)

    def streamed(self, pixels: Tensor, chosen: ImageViews) -> Tensor:
        """Streamed images `[B, C, H, W]` on the device, normalised; crops on the device."""
        return self._finish(views.apply(pixels, chosen.crops, storage(self.plan.augment)), chosen)

    def _finish(self, pixels: Tensor, chosen: ImageViews) -> Tensor:
        """Everything after crop and flip."""
        return self.normalise(pixels)


def storage(augment: AugmentConfig) -> AugmentConfig:
    """What resident images are stored for: padded crops and flips."""
    return augment
