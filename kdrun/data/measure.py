"""What is computed once over all images: the fingerprint, and mean and deviation per channel."""

import hashlib
from collections.abc import Callable

import torch

from kdrun.data.images import Split
from kdrun.types import Normalisation

Progress = Callable[[str, int, int], None]


def fingerprint(splits: list[Split], progress: Progress | None = None) -> str:
    """sha256, in hex, over shapes, pixels and labels of `splits` in this order."""
    digest = hashlib.sha256()
    done, total = 0, sum(len(split) for split in splits)
    for split in splits:
        digest.update(repr((len(split), split.shape, str(split.images.dtype))).encode())
        for block in split.blocks():
            digest.update(block.contiguous().numpy().data.cast("B"))
            done += len(block)
            if progress is not None:
                progress("fingerprint of the images", done, total)
        digest.update(split.targets.contiguous().numpy().data.cast("B"))
    return digest.hexdigest()


def mean_and_std(split: Split, progress: Progress | None = None) -> Normalisation:
    """Mean and standard deviation (over all pixels) per channel, in double precision.

    Of uint8 pixels scaled to 0..1; of float values as they are. A channel that never changes
    gets a deviation of 1, which leaves it at zero.
    """
    channels, height, width = split.shape
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, dtype=torch.float64)
    done = 0
    for block in split.blocks():
        values = block.transpose(0, 1).flatten(1)
        if block.dtype == torch.uint8:  # integers: exact, and counting is quicker than squaring
            count = torch.stack([torch.bincount(row, minlength=256) for row in values]).double()
            level = torch.arange(256, dtype=torch.float64) / 255
            total += count @ level
            squares += count @ level.square()
        else:
            total += values.double().sum(1)
            squares += values.double().square().sum(1)
        done += len(block)
        if progress is not None:
            progress("mean and deviation of the images", done, len(split))
    pixels = len(split) * height * width
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std < 1e-8, 1.0, std)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
