"""What is computed once over all images: the fingerprint, and mean and deviation per channel."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from kdrun.data.images import Split, block_length
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
    moments = Moments(channels, (height, width), len(split), split.images.dtype)
    for block in split.blocks():
        moments.add(block)
        if progress is not None:
            progress("mean and deviation of the images", moments.count, len(split))
    return moments.normalisation()


class Moments:
    """Sums from which mean and standard deviation per channel follow; see `mean_and_std`.

    Images are added up in blocks of one size whatever the sizes they come in, so that the result
    is the same to the last bit. total: how many images there will be at most.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        total: int,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        self.count = 0
        self._pixels = size[0] * size[1]
        self._block = block_length(total, total * channels * self._pixels * dtype.itemsize)
        self._waiting: list[Tensor] = []
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, images: Tensor) -> None:
        """Count images `[b, C, H, W]`."""
        self.count += len(images)
        self._waiting.append(images)
        if sum(map(len, self._waiting)) < self._block:
            return
        whole = torch.cat(self._waiting) if len(self._waiting) > 1 else images
        while len(whole) >= self._block:
            self._add_block(whole[: self._block])
            whole = whole[self._block :]
        self._waiting = [whole] if len(whole) else []

    def _add_block(self, block: Tensor) -> None:
        values = block.transpose(0, 1).flatten(1)
        if block.dtype == torch.uint8:  # integers: exact, and counting is quicker than squaring
            count = torch.stack([torch.bincount(row, minlength=256) for row in values]).double()
            level = torch.arange(256, dtype=torch.float64) / 255
            self._sum += count @ level
            self._squares += count @ level.square()
        else:
            self._sum += values.double().sum(1)
            self._squares += values.double().square().sum(1)

    def normalisation(self) -> Normalisation:
        """Of the images added so far, at least one."""
        if self._waiting:
            self._add_block(torch.cat(self._waiting))
            self._waiting = []
        pixels = self.count * self._pixels
        mean = self._sum / pixels
        std = (self._squares / pixels - mean.square()).clamp_min(0).sqrt()
        std = torch.where(std < 1e-8, 1.0, std)
        return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
