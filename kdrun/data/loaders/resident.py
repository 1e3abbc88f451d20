"""Images resident in device memory, and whether they fit."""

import torch
from torch import Tensor

from kdrun.config.schema import AugmentConfig
from kdrun.data.augment import crops
from kdrun.data.augment.crops import Crops
from kdrun.data.images import Split
from kdrun.data.memory import system_memory

LARGEST_BYTES = 2 * 2**30


class ResidentImages:
    """A split's padded images, followed by their mirror images, as stored bytes on `device`."""

    def __init__(self, split: Split, augment: AugmentConfig, device: torch.device) -> None:
        self.size = split.shape[1:]
        self.augment = augment
        self.num_images = len(split)
        self.stored = _stored(split, augment, device)

    def take(self, index: Tensor, chosen: Crops) -> Tensor:
        """The images at `index` `[B]`, cropped and flipped, `[B, C, H, W]`."""
        if not self.augment.flip:
            return crops.crop(self.stored, index, chosen, self.size)
        # A mirrored crop at dx equals a crop of the mirror image at the mirrored offset.
        dy, dx, flip = chosen.dy, chosen.dx, chosen.flip
        mirrored = Crops(dy, torch.where(flip == 1, 2 * self.augment.crop_padding - dx, dx), flip)
        return crops.crop(self.stored, index + flip * self.num_images, mirrored, self.size)


def _stored(split: Split, augment: AugmentConfig, device: torch.device) -> Tensor:
    images = split.in_memory().to(device)
    border = augment.crop_padding
    if not border and not augment.flip:
        return images
    number, channels, height, width = images.shape
    copies = 2 if augment.flip else 1
    stored = images.new_zeros(copies * number, channels, height + 2 * border, width + 2 * border)
    if augment.padding_mode == "constant":
        inside = stored[:, :, border : border + height, border : border + width]
        inside[:number] = images
    else:
        inside = stored
        inside[:number] = crops.pad(images, border, augment.padding_mode)
    if augment.flip:
        inside[number:] = inside[:number].flip(3)
    return stored


def resident_bytes(split: Split, augment: AugmentConfig) -> int:
    """Bytes that ResidentImages needs for a split."""
    channels, height, width = split.shape
    border = 2 * augment.crop_padding
    pixels = channels * (height + border) * (width + border) * len(split)
    return pixels * split.images.dtype.itemsize * (2 if augment.flip else 1)


def choose_resident(
    split: Split, augment: AugmentConfig, device: torch.device, setting: bool | str = "auto"
) -> bool:
    """Whether to keep a split on `device` (True) or stream it (False).

    setting: true, false, or auto: resident below 2 GiB and below half of the device's free memory.
    """
    choice = str(setting).lower()
    if choice != "auto":
        return choice == "true"
    needed = resident_bytes(split, augment)
    free = free_bytes(device)
    return needed < LARGEST_BYTES and (free is None or needed < free / 2)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of `device` in bytes; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return system_memory()
