"""Images as arrays: in memory, memory-mapped, or decoded on access."""

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

BLOCK_BYTES = 32 * 2**20


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


class MappedImages(LazyImages):
    """A memory-mapped `.npy` file of images `[N, C, H, W]`; the file must not change.

    Verifies every read if the file has checksums (`sums_file`).
    sources: the original file of each image, if known.
    """

    def __init__(self, path: Path, sources: Sequence[object] | None = None) -> None:
        self.path = path
        self.sources = sources
        self.array = _mapped(path)
        self.sums = np.load(sums_file(path)) if sums_file(path).is_file() else None
        if self.sums is not None and self.sums.shape != self.array.shape[:1]:
            raise ValueError(f"{sums_file(path)} does not belong to {path}")
        self.shape = self.array.shape
        self.dtype = torch.from_numpy(np.zeros(0, self.array.dtype)).dtype

    def gather(self, index: Tensor) -> Tensor:
        """Raises DataError when an image fails its checksum."""
        pixels = np.asarray(self.array[index.numpy()])
        if self.sums is not None:
            for position, image in zip(index.tolist(), pixels, strict=True):
                if zlib.crc32(image) != self.sums[position]:
                    raise DataError(
                        f"Image {position} in {self.path} fails its checksum: delete the folder "
                        f"{self.path.parent} to decode the images again."
                    )
        return torch.from_numpy(pixels)

    def name(self, position: int) -> str | None:
        return None if self.sources is None else str(self.sources[position])

    def __reduce__(self) -> tuple[type["MappedImages"], tuple[Path]]:
        return MappedImages, (self.path,)  # workers map the file again instead of copying pixels


def _mapped(path: Path) -> np.ndarray:
    """Map the array in a file. Raises ValueError for any damaged header."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (SyntaxError, EOFError, tokenize.TokenError) as error:
        raise ValueError(f"{path} has a damaged header: {error}") from None
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
        if isinstance(self.images, Tensor):
            return self.images[index]
        return self.images.gather(index)

    def select(self, index: Tensor) -> "Split":
        """A split of the images and labels at positions `index` `[B]`."""
        images = self.images
        return Split(
            images[index] if isinstance(images, Tensor) else SelectedImages(images, index),
            self.targets[index],
            None if self.groups is None else self.groups[index],
            tuple(metric.select(index) for metric in self.extra_metrics),
        )

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
    """

    classes: tuple[str, ...]
    train: Split
    val: Split | None = None
    test: Split | None = None
    fingerprint: str | None = None
    normalisation: Normalisation | None = None
    notes: tuple[str, ...] = ()
    rules: PixelRules | None = None
