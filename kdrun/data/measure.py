"""Statistics over all images: the fingerprint, and mean and std per channel."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from kdrun.data.images import Split, block_length
from kdrun.types import Normalisation

Progress = Callable[[str, int, int], None]


class Fingerprint:
    """Accumulates the fingerprint of splits that are read one after the other.

    Call `start` for each split, `add` for its images in order, `finish` with its labels.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def start(self, count: int, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Begin a split of `count` images; shape: (C, H, W)."""
        self._digest.update(repr((count, shape, str(dtype))).encode())

    def add(self, images: Tensor) -> None:
        """Add images `[b, C, H, W]`."""
        self._digest.update(images.contiguous().numpy().data.cast("B"))

    def finish(self, targets: Tensor) -> None:
        """Add the labels `[N]` of the split."""
        self._digest.update(targets.contiguous().numpy().data.cast("B"))

    def hexdigest(self) -> str:
        """The fingerprint of all splits so far."""
        return self._digest.hexdigest()


def fingerprint(splits: list[Split], progress: Progress | None = None) -> str:
    """sha256 hex over shapes, pixels and labels of `splits`, in this order."""
    digest = Fingerprint()
    done, total = 0, sum(len(split) for split in splits)
    for split in splits:
        digest.start(len(split), split.shape, split.images.dtype)
        for block in split.blocks():
            digest.add(block)
            done += len(block)
            if progress is not None:
                progress("hashing images", done, total)
        digest.finish(split.targets)
    return digest.hexdigest()


def mean_and_std(split: Split, progress: Progress | None = None) -> Normalisation:
    """Mean and standard deviation per channel over all pixels, in double precision.

    uint8 pixels are scaled to 0..1 first. A constant channel gets a std of 1.
    """
    channels, height, width = split.shape
    moments = Moments(channels, (height, width), len(split), split.images.dtype)
    for block in split.blocks():
        moments.add(block)
        if progress is not None:
            progress("measuring mean and std", moments.count, len(split))
    return moments.normalisation()


class Moments:
    """Accumulates mean and standard deviation per channel; see `mean_and_std`.

    Sums images in blocks of fixed size, whatever the sizes of the inputs, so that the result is
    bit-identical. total: maximal number of images.
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
        self._pending: list[Tensor] = []
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, images: Tensor) -> None:
        """Count images `[b, C, H, W]`."""
        self.count += len(images)
        self._pending.append(images)
        if sum(map(len, self._pending)) < self._block:
            return
        whole = torch.cat(self._pending) if len(self._pending) > 1 else images
        while len(whole) >= self._block:
            self._add_block(whole[: self._block])
            whole = whole[self._block :]
        self._pending = [whole] if len(whole) else []

    def _add_block(self, block: Tensor) -> None:
        values = block.transpose(0, 1).flatten(1)
        if block.dtype == torch.uint8:  # a histogram is exact and faster than squaring
            count = torch.stack([torch.bincount(row, minlength=256) for row in values]).double()
            level = torch.arange(256, dtype=torch.float64) / 255
            self._sum += count @ level
            self._squares += count @ level.square()
        else:
            self._sum += values.double().sum(1)
            self._squares += values.double().square().sum(1)

    def normalisation(self) -> Normalisation:
        """Mean and std of the images added so far; at least one."""
        if self._pending:
            self._add_block(torch.cat(self._pending))
            self._pending = []
        pixels = self.count * self._pixels
        mean = self._sum / pixels
        std = (self._squares / pixels - mean.square()).clamp_min(0).sqrt()
        std = torch.where(std < 1e-8, 1.0, std)
        return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
