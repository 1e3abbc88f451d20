"""Convert the return value of a source function to a RawDataset."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdrun.data.images import SPLITS, LazyImages, RawDataset, Split
from kdrun.data.labels import as_targets, numbered_classes
from kdrun.data.text import abbreviate
from kdrun.errors import DataError, did_you_mean

LARGEST_RATIO = 50  # of the mean values of two splits
EXPECTED = (
    "return a kdrun.data.RawDataset, or {'train': (images, targets), 'test': (images, targets)} "
    "with optional 'val' and 'classes'"
)


def as_raw_dataset(returned: Any, target: str, num_classes: int | None = None) -> RawDataset:
    """The return value of the function `target` as a RawDataset.

    Accepts a RawDataset; a mapping with `train` and optionally `test` (else a fifth of `train` is
    held out), `val` and `classes`; or a pair (train, test). A split is a pair (images, targets) of
    arrays or tensors: images `[N, H, W]`, `[N, C, H, W]` or, of up to four channels,
    `[N, H, W, C]`, uint8 or float;
    targets `[N]` whole numbers from 0, or names listed in `classes`.
    num_classes: `dataset.num_classes`, needed for labels with gaps.

    Raises DataError with what is wrong and what is expected.
    """
    if isinstance(returned, RawDataset):
        for name in SPLITS:
            if (split := getattr(returned, name)) is not None:
                _check_split(split, f"{target}, {name}")
        notes = _order_notes(returned.train, target)
        return replace(returned, notes=(*returned.notes, *notes)) if notes else returned
    if isinstance(returned, tuple | list) and len(returned) == 2:
        returned = {"train": returned[0], "test": returned[1]}
    if not isinstance(returned, Mapping):
        raise DataError(f"{target} returned a {type(returned).__name__}: {EXPECTED}.")
    for key in returned:
        if key not in (*SPLITS, "classes"):
            hint = did_you_mean(str(key), (*SPLITS, "classes"))
            raise DataError(f"{target} returned an unknown entry '{key}'.{hint}")
    if returned.get("train") is None:
        raise DataError(f"{target} returned no 'train': {EXPECTED}.")
    classes = _classes(returned.get("classes"), target)
    parts = {
        name: _split(returned[name], f"{target}, {name}", classes, num_classes)
        for name in SPLITS
        if returned.get(name) is not None
    }
    if classes is None:
        classes = numbered_classes(parts, num_classes, target)
    _check_range(parts, target)
    notes = _order_notes(parts["train"], target)
    return RawDataset(classes, parts["train"], parts.get("val"), parts.get("test"), notes=notes)


def _check_range(parts: dict[str, Split], target: str) -> None:
    """Raise DataError for splits of another range, as 0..1 and 0..255; looks at a sample."""
    sizes = {name: float(split.sample().float().abs().mean()) for name, split in parts.items()}
    for name, size in sizes.items():
        low, high = sorted((size, sizes["train"]))
        if 0 < low * LARGEST_RATIO < high:
            raise DataError(
                f"{target}: the {name} images have values of about {size:.2g} on average, and the "
                f"train images of {sizes['train']:.2g}: give all splits in one range, 0..1 or "
                "0..255."
            )


def _order_notes(train: Split, target: str) -> tuple[str, ...]:
    """A note on images that are more likely `[N, H, W, C]` than what they are read as."""
    channels, height, width = train.shape
    pixels_first = channels == height != width  # square images, other channels in the last place
    if height == 1 or channels <= 4 or not (channels > width or pixels_first):
        return ()
    return (
        f"{target}: the images are read as [N, C, H, W], {channels} channels of {width}×{height} "
        "pixels; if they are [N, H, W, C], return images.transpose(0, 3, 1, 2).",
    )


def _classes(value: Any, target: str) -> tuple[str, ...] | None:
    """The class names, if any. Raises DataError for anything but distinct names."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise DataError(f"{target}: 'classes' must be a list of names.")
    names = tuple(str(name) for name in value)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{target}: 'classes' lists {abbreviate(repeated)} twice.")
    return names


def _split(
    value: Any, where: str, classes: tuple[str, ...] | None, num_classes: int | None
) -> Split:
    if isinstance(value, Split):
        _check_split(value, where)
        return value
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"{where} must be a pair (images, targets).")
    for what, part in zip(("images", "targets"), value, strict=True):
        if hasattr(part, "__len__") and getattr(part, "shape", (1,)) != () and len(part) == 0:
            raise DataError(f"{where} has no {what}: give at least one, or leave the split out.")
    images, targets = _images(value[0], where), as_targets(value[1], where, classes, num_classes)
    if len(images) != len(targets):
        raise DataError(f"{where} has {len(images)} images and {len(targets)} targets.")
    return Split(images, targets)


def _check_split(split: Split, where: str) -> None:
    """Raise DataError for images of a finished split that are not as `Split` describes."""
    images = split.images
    found = f"{where} images are {images.dtype} of shape {list(images.shape)}"
    if len(images.shape) != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise DataError(f"{found}; a Split takes uint8 or float32, [N, C, H, W].")
    if isinstance(images, Tensor) and not bool(torch.isfinite(images).all()):
        raise DataError(f"{where} images contain values that are not finite.")


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, list | tuple) and any(getattr(one, "mode", "") == "P" for one in value):
        raise DataError(f"{where} have a palette: convert each, image.convert('RGB').")
    try:
        return torch.from_numpy(np.ascontiguousarray(value))
    except (TypeError, ValueError):
        raise DataError(
            f"{where} must be an array or tensor of numbers, all images of one size."
        ) from None


def _images(value: Any, where: str) -> Tensor | LazyImages:
    if isinstance(value, LazyImages):
        return value
    images = _tensor(value, f"{where} images")
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4:
        raise DataError(
            f"{where} images have shape {list(images.shape)}; expected [N, H, W], "
            "[N, C, H, W] or [N, H, W, C]."
        )
    if images.shape[1] not in (1, 2, 3, 4) and images.shape[3] in (1, 2, 3, 4):
        images = images.permute(0, 3, 1, 2)
    if images.dtype.is_floating_point:
        if not bool(torch.isfinite(images).all()):
            raise DataError(f"{where} images contain values that are not finite.")
        images = images.float()
    elif images.dtype != torch.uint8:
        images = _as_bytes(images, where)
    return images.contiguous()


def _as_bytes(images: Tensor, where: str) -> Tensor:
    """Integers of another type as uint8. Raises DataError outside 0..255."""
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if images.dtype.is_complex:
        raise DataError(f"{where} images are {images.dtype}: give uint8 pixels, or float values.")
    kind, images = images.dtype, images.long()  # torch cannot compare larger unsigned types
    if images.numel() and (int(images.min()) < 0 or int(images.max()) > 255):
        raise DataError(
            f"{where} images are {kind} with values outside 0..255: give uint8 pixels, "
            "or float values."
        )
    return images.to(torch.uint8)
