"""Images as arrays: in memory, in a file, or decoded on access."""

import itertools
import os
import threading
import tokenize
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdrun.data.decoding.rules import PixelRules
from kdrun.errors import DataError
from kdrun.types import Normalisation, SplitMetric

SPLITS = ("train", "val", "test")
BLOCK_BYTES = 32 * 2**20
SAMPLE = 256


class LazyImages(ABC):
    """A sequence of images of one size, read on access. Must be picklable for loader workers."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    sums: np.ndarray | None = None  # CRC-32 of each image's bytes `[N]`, if known

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def gather(self, index: Tensor) -> Tensor:
        """The images at positions `index` `[B]`, as `[B, C, H, W]` in memory."""

    def name(self, position: int) -> str | None:
        """The file of one image, if known."""
        return None


class StoredImages(LazyImages):
    """A `.npy` file of images `[N, C, H, W]`, read on access; the file must not change.

    Reads instead of mapping: mapped pages count as memory of the process, so a pass over the file
    would appear to need all of it, and a truncated file would kill the process.

    Verifies every read if the file has checksums (`sums_file`).
    sources: the original file of each image, if known.
    """

    def __init__(self, path: Path, sources: Sequence[object] | None = None) -> None:
        self.path = path
        self.sources = sources
        header = _header(path)
        self.shape = header.shape
        self.sums = np.load(sums_file(path)) if sums_file(path).is_file() else None
        if self.sums is not None and self.sums.shape != header.shape[:1]:
            raise ValueError(f"{sums_file(path)} does not belong to {path}")
        self.dtype = torch.from_numpy(np.zeros(0, header.dtype)).dtype
        self._start = header.offset
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this object
        self._lock = threading.Lock()

    def gather(self, index: Tensor) -> Tensor:
        """Raises DataError when an image fails its checksum or the file is truncated."""
        pixels = torch.empty(len(index), *self.shape[1:], dtype=self.dtype)
        if not pixels.numel():
            return pixels
        rows = pixels.numpy()
        positions = index.numpy()
        if positions.min() < 0 or positions.max() >= len(self):
            raise IndexError(f"{self.path} has {len(self)} images")
        ends = np.flatnonzero(np.diff(positions) != 1) + 1  # of runs of consecutive images
        for first, end in itertools.pairwise([0, *ends.tolist(), len(positions)]):
            self._read(int(positions[first]), rows[first:end])
        if self.sums is not None:
            for position, image in zip(positions.tolist(), rows, strict=True):
                if zlib.crc32(image) != self.sums[position]:
                    raise self._damaged(f"Image {position} in {self.path} fails its checksum")
        return pixels

    def _read(self, first: int, rows: np.ndarray) -> None:
        """Fill `rows` with the images from position `first` on."""
        view = rows.data.cast("B")
        offset = self._start + first * (view.nbytes // len(rows))
        while view:
            if hasattr(os, "preadv"):
                count = os.preadv(self._file.fileno(), [view], offset)
            else:  # Windows: one file position for all threads
                with self._lock:
                    self._file.seek(offset)
                    count = self._file.readinto(view)
            if not count:
                raise self._damaged(f"{self.path} is truncated")
            view, offset = view[count:], offset + count

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{what}: delete the folder {self.path.parent} to decode the images again."
        )

    def name(self, position: int) -> str | None:
        return None if self.sources is None else str(self.sources[position])

    def __reduce__(self) -> tuple[type["StoredImages"], tuple[Path]]:
        return StoredImages, (self.path,)  # workers open the file instead of copying pixels


def _header(path: Path) -> np.memmap:
    """Shape, type and offset of the array in a file. Raises ValueError for any damage."""
    try:
        array: np.memmap = np.load(path, mmap_mode="r")
    except (SyntaxError, EOFError, tokenize.TokenError) as error:
        raise ValueError(f"{path} has a damaged header: {error}") from None
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous or not array.ndim:
        raise ValueError(f"{path} is not an array of images")
    return array


def sums_file(path: Path) -> Path:
    """The checksum file of the image file `path`: CRC-32 per image, uint32 `[N]`."""
    return path.with_suffix(".crc.npy")


def checksums(images: np.ndarray) -> list[int]:
    """CRC-32 of each image of `[N, ...]`."""
    return [zlib.crc32(image.tobytes()) for image in images]


class SelectedImages(LazyImages):
    """A selection of a lazy sequence, in a given order, without reading it."""

    def __init__(self, source: LazyImages, index: Tensor) -> None:
        self.source = source
        self.index = index
        self.shape = (len(index), *source.shape[1:])
        self.dtype = source.dtype
        self.sums = None if source.sums is None else source.sums[index.numpy()]

    def gather(self, index: Tensor) -> Tensor:
        return self.source.gather(self.index[index])

    def name(self, position: int) -> str | None:
        return self.source.name(int(self.index[position]))


Images = Tensor | LazyImages


def gather(images: Images, index: Tensor) -> Tensor:
    """The images at positions `index` `[B]` (on the CPU), as `[B, C, H, W]` in memory."""
    return images[index] if isinstance(images, Tensor) else images.gather(index)


def select(images: Images, index: Tensor) -> Images:
    """The images at positions `index` `[B]`; lazy images are not read."""
    return images[index] if isinstance(images, Tensor) else SelectedImages(images, index)


def block_length(count: int, nbytes: int) -> int:
    """Number of images to read at once, of `count` images with `nbytes` in total."""
    return max(1, BLOCK_BYTES * count // max(1, nbytes))


@dataclass(frozen=True)
class Split:
    """One split of a data set, before normalisation.

    images: `[N, C, H, W]`, uint8 pixels or float32 values.
    targets: `[N]` int64 class numbers.
    groups: images that belong together, if any. A group has one class and stays in one split.
    extra_metrics: measured on this split beside accuracy.
    """

    images: Images
    targets: Tensor
    groups: Tensor | None = None
    extra_metrics: tuple[SplitMetric, ...] = ()

    def __len__(self) -> int:
        return self.targets.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def nbytes(self) -> int:
        """Bytes of all images as stored."""
        channels, height, width = self.shape
        return len(self) * channels * height * width * self.images.dtype.itemsize

    def gather(self, index: Tensor) -> Tensor:
        """The images at positions `index` `[B]` (on the CPU), as `[B, C, H, W]`."""
        return gather(self.images, index)

    def select(self, index: Tensor) -> "Split":
        """A split of the images and labels at positions `index` `[B]`."""
        return Split(
            select(self.images, index),
            self.targets[index],
            None if self.groups is None else self.groups[index],
            tuple(metric.select(index) for metric in self.extra_metrics),
        )

    def sample(self) -> Tensor:
        """At most 256 evenly spaced images, `[n, C, H, W]`."""
        count = min(len(self), SAMPLE)
        return self.gather(torch.linspace(0, len(self) - 1, count).round().long())

    def blocks(self) -> Iterator[Tensor]:
        """All images in order, in blocks `[b, C, H, W]`."""
        size = block_length(len(self), self.nbytes)
        for start in range(0, len(self), size):
            yield self.gather(torch.arange(start, min(start + size, len(self))))

    def in_memory(self) -> Tensor:
        """All images, `[N, C, H, W]`; not a copy if they are a tensor already."""
        if isinstance(self.images, Tensor):
            return self.images
        whole = torch.empty(len(self), *self.shape, dtype=self.images.dtype)
        start = 0
        for block in self.blocks():
            whole[start : start + len(block)] = block
            start += len(block)
        return whole


@dataclass(frozen=True)
class RawDataset:
    """The splits that a source returns.

    classes: names in the order of the class numbers.
    val, test: None if the source has no such split.
    fingerprint: sha256 hex over all pixels and labels, if known without reading all images.
    normalisation: mean and std of `train`, if known without reading all images.
    notes: decisions to report to the user, one sentence each.
    rules: conversion of image files to pixels, if any.
    test_is_drawn: the source has no test split, so one was held out at random.
    """

    classes: tuple[str, ...]
    train: Split
    val: Split | None = None
    test: Split | None = None
    fingerprint: str | None = None
    normalisation: Normalisation | None = None
    notes: tuple[str, ...] = ()
    rules: PixelRules | None = None
    test_is_drawn: bool = False
