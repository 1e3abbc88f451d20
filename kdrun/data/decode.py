"""From an image file to bytes of one shape: what Pillow reads, turned, resized and cropped."""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kdrun.data.images import LazyImages
from kdrun.data.members import Source, open_source
from kdrun.data.tree import FileList, readable_formats
from kdrun.errors import DataError

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
LARGEST_PIXELS = 100_000_000  # in a file; a few kilobytes can unfold to more than any memory holds
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange width and height
BLOCK = 256
THREADS_FROM_BYTES = 16_384
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Form:
    """What every image becomes: `size` (height, width) and 1 (grey) or 3 (colour) channels."""

    size: tuple[int, int]
    channels: int


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels are decoded: (height, width) as shown, and colour."""

    size: tuple[int, int]
    grey: bool


def read_header(path: Source) -> Header:
    """Size and colour of an image, without decoding it; DataError naming a damaged file."""
    with _reading(path), _opened(path) as image:
        width, height = image.size
        # A PNG keeps EXIF data behind its pixels: not asked for where it changes nothing.
        if width != height and image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        return Header((height, width), _is_grey(image))


def read_image(path: Source, form: Form) -> np.ndarray:
    """The image in `path` as uint8 `[C, H, W]` of the given form.

    EXIF orientation is applied, transparency is laid on black, 16-bit grey is scaled to 8, of
    several frames the first is taken. Another size is resized (bilinear, antialiased) until it
    just covers the wanted one, and the centre is cut out.

    Raises DataError naming a file that is damaged or too large to be a picture.
    """
    with _reading(path), _opened(path) as image:
        height, width = form.size
        image.draft(None, (2 * max(form.size),) * 2)  # large JPEGs are decoded at a fraction
        turned = ImageOps.exif_transpose(image)
        plain = _as_mode(turned, "L" if form.channels == 1 else "RGB")
        if plain.size != (width, height):
            plain = _cover(plain, width, height)
        pixels = np.asarray(plain)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(path: Source) -> Iterator[Image.Image]:
    """The image in a file, whatever its name says; never through another program."""
    with open_source(path) as file, Image.open(file, formats=readable_formats()) as image:
        if image.width * image.height > LARGEST_PIXELS:
            raise Image.DecompressionBombError(
                f"{image.width}×{image.height} pixels are more than {LARGEST_PIXELS:,}"
            )
        yield image


class _reading:  # noqa: N801 - reads as a statement: with _reading(path)
    """Turns whatever Pillow raises for a bad file into one sentence with its name."""

    def __init__(self, path: Source) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Image.DecompressionBombError):
            raise DataError(
                f"{self.path} is too large to be decoded safely: {error}. Make it smaller."
            ) from None
        if isinstance(error, Exception) and not isinstance(error, DataError):
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, Image.UnidentifiedImageError):
                text = "not an image of any known format"
            raise DataError(
                f"{self.path} cannot be decoded ({text}): replace the file or remove it."
            ) from None


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in GREY_MODES


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The picture in `L` or `RGB`, transparent parts black."""
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        image = _sixteen_bits(image)
    elif image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        black = Image.new("RGBA", clear.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, clear).convert("RGB")
    return image.convert(mode)


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey levels 0..65535 as 0..255, rounded."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("32-bit pixels outside 0..65535; save it with 8 or 16 bits")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _cover(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / image.width, height / image.height)
    size = (
        max(width, round(image.width * scale)),
        max(height, round(image.height * scale)),
    )
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))


def in_blocks(function: Callable[[Source], ResultT], files: FileList) -> Iterator[list[ResultT]]:
    """`function` of every file's path, in order, a block at a time.

    Small files are read in this thread: Pillow holds Python's lock most of the time for them, and
    threads were measured to be slower. Large ones are shared among the processors.
    """
    blocks = [files.paths[start : start + BLOCK] for start in range(0, len(files), BLOCK)]
    large = sum(files.sizes) >= THREADS_FROM_BYTES * len(files)
    workers = min(os.cpu_count() or 1, 16) if large else 1
    if workers == 1:
        for block in blocks:
            with _without_warnings():
                results = [function(path) for path in block]
            yield results
        return
    with ThreadPoolExecutor(workers) as pool:
        for block in blocks:
            with _without_warnings():
                results = list(pool.map(function, block))
            yield results


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of odd EXIF data and of large pictures; what it cannot read is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class DecodedImages(LazyImages):
    """Image files that are decoded each time they are asked for; nothing is kept."""

    def __init__(self, paths: list[Source], form: Form) -> None:
        self.paths = paths
        self.form = form
        self.shape = (len(paths), form.channels, *form.size)
        self.dtype = torch.uint8

    def gather(self, index: Tensor) -> Tensor:
        images = torch.empty(len(index), *self.shape[1:], dtype=torch.uint8)
        with _without_warnings():
            for row, position in enumerate(index.tolist()):
                images[row] = torch.from_numpy(read_image(self.paths[position], self.form).copy())
        return images
