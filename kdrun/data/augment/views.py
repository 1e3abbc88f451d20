"""Which augmentation each image has in an epoch, and the number of different ones.

The augmentation of an image is a pure function of the seed, the image and the epoch modulo
`augment.cycle`. Crops and flips are integers drawn for all images; further random numbers are drawn
per batch (`random_numbers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, ErasingConfig, JitterConfig
from kdrun.config.convert import to_plain
from kdrun.data.augment import crops
from kdrun.data.augment.crops import Crops
from kdrun.data.augment.mixing import Mixing, draw_mixing
from kdrun.seeds import derive


@dataclass(frozen=True)
class ImageViews:
    """The augmentation of some images in one epoch.

    number: the epoch modulo `augment.cycle`. index: `[B]` positions of the images, on the CPU.
    crops: their crops and flips, on the CPU or the device.
    epoch: the views of all images in that epoch, for partners; needed only where images are mixed.
    """

    number: int
    index: Tensor
    crops: Crops
    epoch: "EpochViews | None" = None

    def to(self, device: torch.device) -> "ImageViews":
        """The same views with crops on `device`."""
        return replace(self, crops=self.crops.to(device))

    def of(self, index: Tensor) -> "ImageViews":
        """The views of other images `[B]` (on the CPU) in the same epoch, where the crops are."""
        assert self.epoch is not None
        crops = self.epoch.crops
        return self.epoch.select(index, index.to(crops.dy.device)).to(self.crops.dy.device)


@dataclass(frozen=True)
class EpochViews:
    """The augmentation of all images in one epoch; number: the epoch modulo `augment.cycle`."""

    number: int
    crops: Crops

    def select(self, index: Tensor, on_device: Tensor | None = None) -> ImageViews:
        """The views of the images at `index` `[B]`; on_device: the same index where `crops` is."""
        crops = self.crops.select(index if on_device is None else on_device)
        return ImageViews(self.number, index, crops, self)

    def to(self, device: torch.device) -> "EpochViews":
        """The same views with crops on `device`."""
        return EpochViews(self.number, self.crops.to(device))


@dataclass(frozen=True)
class Shown:
    """Which images a batch shows, each in its view of which epoch; `[B]` int64 on the CPU."""

    index: Tensor
    epochs: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Tensor) -> "Shown":
        """Some of the rows; rows: their numbers, or a mask `[B]`."""
        return Shown(self.index[rows], self.epochs[rows])

    def by_epoch(self) -> list[tuple[int, Tensor]]:
        """(epoch, its rows) in ascending order."""
        return [
            (epoch, (self.epochs == epoch).nonzero()[:, 0])
            for epoch in self.epochs.unique().tolist()
        ]


def joined(parts: Sequence[Shown]) -> Shown:
    """The rows of several, in order."""
    if len(parts) == 1:
        return parts[0]
    return Shown(torch.cat([p.index for p in parts]), torch.cat([p.epochs for p in parts]))


@dataclass(frozen=True)
class Plan:
    """How the images of a network are augmented: the settings, the seed, the number of images.

    fixed: every image is shown plain: centred, unflipped. policy_stream: name of the random numbers
    of its policy.
    """

    augment: AugmentConfig
    seed: int
    num_images: int
    fixed: bool = False
    policy_stream: str = "policy"

    def views(self, epoch: int) -> EpochViews:
        """The views of all images in `epoch`."""
        if self.fixed:
            return EpochViews(0, crops.centre(self.num_images, self.augment))
        number = self.number(epoch)
        return EpochViews(number, crops.draw(self.num_images, self.augment, self.seed, number))

    def number(self, epoch: int) -> int:
        """The epoch modulo `augment.cycle`."""
        cycle = self.augment.cycle
        return 0 if self.fixed else epoch if cycle is None else epoch % cycle

    @property
    def view_count(self) -> int | None:
        """Number of different views of an image; None if there is no end of them."""
        augment = self.augment
        if self.fixed:
            return 1
        if augment.cycle is not None:
            return augment.cycle
        if not augment.is_crop_flip:
            return None
        return (2 * augment.crop_padding + 1) ** 2 * (2 if augment.flip else 1)

    def mixing(self, number: int, index: Tensor, size: tuple[int, int]) -> Mixing | None:
        """How the images at `index` `[B]` are mixed in epoch `number`; None: they are not.

        size: (height, width) of the images.
        """
        if self.fixed or not self.augment.mixes:
            return None
        height_width = torch.tensor(size)
        return draw_mixing(self.augment, self.seed, number, index, self.num_images, height_width)

    def view_numbers(self, chosen: ImageViews) -> Tensor:
        """`[B]` int64 on the CPU: the number of each view, below `view_count`."""
        if self.fixed or self.augment.cycle is not None:
            return torch.full_like(chosen.index, chosen.number)
        places = 2 * self.augment.crop_padding + 1
        number = chosen.crops.dy * places + chosen.crops.dx
        return number * 2 + chosen.crops.flip if self.augment.flip else number

    def identity(self) -> dict[str, Any]:
        """All that view k of image i depends on besides the stored images: part of a cache's key.

        Without a cycle the number of a view says what it is; with one it depends on the seed, and
        a partner image on the number of images.
        """
        if self.fixed:
            return {"augment": {"fixed": True, "crop": self.augment.crop}}
        augment = replace(self.augment, teacher_view="same", strong=None)
        random = augment.cycle is not None
        drawn = {"seed": self.seed, "num_images": self.num_images} if random else {}
        return {"augment": to_plain(augment), **drawn}


def teacher_plan(student: Plan) -> Plan:
    """How the teacher's images are augmented (`augment.teacher_view`)."""
    view, weak = student.augment.teacher_view, crop_and_flip(student.augment)
    if view == "weak":
        return replace(student, augment=weak)
    if view == "fixed":
        return replace(student, augment=weak, fixed=True)
    if view == "independent":
        return replace(student, seed=derive(student.seed, "teacher view"))
    return student


def strong_plan(student: Plan) -> Plan:
    """The second view for losses that compare two: the first with policy `augment.strong`."""
    assert student.augment.strong is not None
    augment = replace(student.augment, policy=student.augment.strong)
    return replace(student, augment=augment, policy_stream="strong policy")


def crop_and_flip(augment: AugmentConfig) -> AugmentConfig:
    """The augmentation without what changes colours or hides parts; images are still mixed."""
    return replace(augment, policy="none", color_jitter=JitterConfig(), erasing=ErasingConfig())
