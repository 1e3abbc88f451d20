"""Centre crops of stored images (`dataset.crop_ratio`), as pretrained networks are evaluated.

Image files are stored larger than the networks' input: resized to cover `size / ratio`. Evaluation
and plain views see the centre; random resized crops are taken from the whole stored image.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from kdrun.data.images import (
    Images,
    LazyImages,
    RawDataset,
    SelectedImages,
    Split,
    gather,
    select,
)
from kdrun.errors import DataError

Size = tuple[int, int]


class CentreCropped(LazyImages):
    """The centres `[N, C, *size]` of the images of `source`."""

    def __init__(self, source: Images, size: Size) -> None:
        self.source = source
        self.size = size
        self.shape = (source.shape[0], source.shape[1], *size)
        self.dtype = source.dtype

    def gather(self, index: Tensor) -> Tensor:
        return centre(gather(self.source, index), self.size).contiguous()

    def name(self, position: int) -> str | None:
        return None if isinstance(self.source, Tensor) else self.source.name(position)


def centre(pixels: Tensor, size: Size) -> Tensor:
    """The central `size` (height, width) of pixels `[B, C, H, W]`."""
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape[2:], size, strict=True))
    return pixels[:, :, top : top + size[0], left : left + size[1]]


def uncropped(images: Images) -> Images:
    """The whole stored images of which `images` are the centres; else `images`."""
    if isinstance(images, CentreCropped):
        return images.source
    if isinstance(images, SelectedImages):
        whole = uncropped(images.source)
        return images if whole is images.source else select(whole, images.index)
    return images


def stored_split(split: Split) -> Split:
    """The split with its whole stored images."""
    whole = uncropped(split.images)
    return split if whole is split.images else replace(split, images=whole)


def stored_size(size: Size, ratio: float) -> Size:
    """The size (height, width) of stored images whose centre is `size`."""
    height, width = size
    return round(height / ratio), round(width / ratio)


def cropped_size(stored: Size, ratio: float) -> Size:
    """The size of the centre of stored images; the inverse of `stored_size`."""
    sides = [max(round(side * ratio), 1) for side in stored]
    return sides[0], sides[1]


def stored_arguments(kwargs: dict[str, Any], ratio: float) -> dict[str, Any]:
    """A source's arguments with the stored `image_size` instead of the networks'."""
    size = kwargs.get("image_size")
    if isinstance(size, int) and not isinstance(size, bool):
        return {**kwargs, "image_size": stored_size((size, size), ratio)[0]}
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return {**kwargs, "image_size": list(stored_size((size[0], size[1]), ratio))}
    return kwargs


def crop_splits(raw: RawDataset, kwargs: dict[str, Any], ratio: float) -> RawDataset:
    """The data set with the centres of its images. kwargs: the source's arguments as given.

    Raises DataError for images smaller than `dataset.image_size`.
    """
    stored = raw.train.shape[1:]
    given = kwargs.get("image_size")
    size = cropped_size(stored, ratio)
    if given is not None and stored_arguments(kwargs, ratio) is not kwargs:
        size = (given, given) if isinstance(given, int) else (given[0], given[1])
    if size[0] > stored[0] or size[1] > stored[1]:
        raise DataError(
            f"dataset.crop_ratio={ratio:g} cuts {size[1]}×{size[0]} pixels out of images of "
            f"{stored[1]}×{stored[0]}: set dataset.crop_ratio=1, or a smaller dataset.image_size."
        )

    def crop(split: Split | None) -> Split | None:
        return None if split is None else replace(split, images=CentreCropped(split.images, size))

    train = crop(raw.train)
    assert train is not None
    return replace(raw, train=train, val=crop(raw.val), test=crop(raw.test))


def with_cropped_form(
    before: Callable[..., None] | None, ratio: float
) -> Callable[..., None] | None:
    """`before_decoding`, called with the networks' image size instead of the stored one."""
    if before is None or ratio == 1:
        return before

    def cropped(classes: tuple[str, ...], form: Any) -> None:
        before(classes, replace(form, size=cropped_size(form.size, ratio)))

    return cropped
