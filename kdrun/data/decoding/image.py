"""Decode an image file to 8-bit pixels of one shape: read, convert, rotate, resize, crop.

This module opens files and reports broken ones; `kdrun.data.decoding.colours` converts colours.
"""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdrun.data.decoding import colours as pixels
from kdrun.data.decoding import levels as deep
from kdrun.data.decoding import rules as kind
from kdrun.data.decoding.formats import readable_formats
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.images import LazyImages
from kdrun.data.tree import FileList, Source, open_source
from kdrun.errors import BrokenImageError, KdrunError, MachineError, machine_error

LARGEST_PIXELS = 100_000_000  # in a file; a few kilobytes can unfold to more than any memory holds
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange width and height
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The frames of these formats are no animation or pages: layers of one image, sizes of one icon.
LAYERED = {"PSD", "ICO", "ICNS", "CUR"}
SAMPLE_SCALE = {"L;2": 85, "L;4": 17}  # grey PNGs of 2 and 4 bits, as Pillow unpacks them
PLAIN = PixelRules()
# System errors that are the file's fault; any other is the machine's, and no reason to skip a file.
FILE_ERRNOS = {
    None,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}
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
    """What a file says before its pixels are decoded.

    size: (height, width) as shown. deep: pixels of more than 8 bits.
    """

    size: tuple[int, int]
    grey: bool
    deep: bool = False


@dataclass(frozen=True)
class Decoded:
    """An image as uint8 `[C, H, W]`, and the kinds of conversion it took (see `pixels`)."""

    pixels: np.ndarray
    kinds: frozenset[str]


def read_header(path: Source) -> Header:
    """Size and colour of an image, without decoding it; DataError naming a damaged file."""
    with _reading(path), _opened(path) as image:
        width, height = image.size
        grey, is_deep = pixels.is_grey(image), deep.is_deep(image)
        # A PNG has its EXIF data behind its pixels, which are then loaded: not where it changes
        # nothing. Pillow gives the size of a TIFF as shown.
        asked = width != height and image.format != "TIFF"
        if asked and image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        return Header((height, width), grey, is_deep)


def read_image(path: Source, form: Form, rules: PixelRules = PLAIN) -> np.ndarray:
    """The image in `path` as uint8 `[C, H, W]` of the given form; see `decode_image`."""
    return decode_image(path, form, rules).pixels


def decode_image(path: Source, form: Form, rules: PixelRules = PLAIN) -> Decoded:
    """The image in `path` in the given form, its pixels converted by `rules`.

    EXIF orientation is applied; of several frames or pages the first is taken. Another size is
    resized (bilinear, antialiased) until it just covers the wanted one, and the centre is cut out.

    Raises BrokenImageError (a DataError) for a file that is damaged or too large.
    """
    with _reading(path), _opened(path) as image:
        height, width = form.size
        kinds: set[str] = set()
        if image.format not in LAYERED and getattr(image, "is_animated", False):
            kinds.add(kind.FRAMES)
        turn = image.getexif().get(ORIENTATION, 1) if image.format == "TIFF" else None
        if deep.is_deep(image):
            levels = _levels(path, image)
            flat = deep.eight_bits(levels, rules, kinds)
            flat.info = {k: v for k, v in image.info.items() if k != "transparency"}
        else:
            image.draft(None, (2 * max(form.size),) * 2)  # large JPEGs are decoded at a fraction
            _scale_transparency(image)
            image.load()
            flat = image
        flat = pixels.flatten(flat, form.channels, rules, kinds)
        if turn is None:
            turn = image.getexif().get(ORIENTATION, 1)
            flat = flat.transpose(TURNS[turn]) if turn in TURNS else flat
        if turn in TURNS:  # Pillow has turned a TIFF by now
            kinds.add(kind.TURNED)
        if flat.size != (width, height):
            flat = _cover(flat, width, height)
        array = np.asarray(flat)
    array = array[None] if form.channels == 1 else array.transpose(2, 0, 1)
    return Decoded(array, frozenset(kinds))


def read_levels(path: Source) -> tuple[bool, float, float]:
    """Of an image with more than 8 bits: whether it has floats, and its smallest and largest value.

    Raises BrokenImageError for a damaged file.
    """
    with _reading(path), _opened(path) as image:
        levels = _levels(path, image)
        return levels.is_real, float(levels.values.min()), float(levels.values.max())


def _levels(path: Source, image: Image.Image) -> deep.Levels:
    """The unreduced pixels of an opened image with more than 8 bits."""
    if deep.deep_colour_mode(image) is None:
        return deep.single_channel_levels(image)
    with _opened(path) as again:
        return deep.colour_levels(image, again)


def _scale_transparency(image: Image.Image) -> None:
    """Pillow scales samples of 2- and 4-bit grey PNGs, but not the level that is transparent."""
    level = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(level, int):
        raw = image.tile[0][3] if image.tile else None  # type: ignore[attr-defined]
        image.info["transparency"] = level * SAMPLE_SCALE.get(str(raw), 1)


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
            raise BrokenImageError(
                str(self.path),
                f"too large: {error}",
                f"{self.path} is too large to be decoded safely: {error}. Make it smaller.",
            ) from None
        if isinstance(error, OSError) and error.errno not in FILE_ERRNOS:
            raise machine_error(error) or MachineError(
                f"{self.path} cannot be read ({error.strerror}): check the disk or the network."
            ) from None
        if isinstance(error, Exception) and not isinstance(error, KdrunError | MemoryError):
            reason = _reason(self.path, error)
            raise BrokenImageError(
                str(self.path),
                reason,
                f"{self.path} cannot be decoded ({reason}): replace the file or remove it.",
            ) from None


def _reason(path: Source, error: Exception) -> str:
    """Why a file is no readable image, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not isinstance(error, Image.UnidentifiedImageError):
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    try:
        with open_source(path) as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except (OSError, ValueError):
        return "not an image of any known format"
    if not start:
        return "an empty file"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML), not an image"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; fetch the file with git lfs pull"
    return "not an image of any known format"


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
    """Image files that are decoded each time they are asked for; nothing is kept.

    sums: CRC-32 of each image's pixels, where a pass over them has measured it.
    """

    def __init__(
        self,
        paths: list[Source],
        form: Form,
        rules: PixelRules = PLAIN,
        sums: np.ndarray | None = None,
    ) -> None:
        self.paths = paths
        self.form = form
        self.rules = rules
        self.sums = sums
        self.shape = (len(paths), form.channels, *form.size)
        self.dtype = torch.uint8

    def name(self, position: int) -> str | None:
        return str(self.paths[position])

    def gather(self, index: Tensor) -> Tensor:
        images = torch.empty(len(index), *self.shape[1:], dtype=torch.uint8)
        with _without_warnings():
            for row, position in enumerate(index.tolist()):
                image = read_image(self.paths[position], self.form, self.rules)
                images[row] = torch.from_numpy(image.copy())
        return images
