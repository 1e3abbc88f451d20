"""Decode an image file to 8-bit pixels of one shape: read, convert, rotate, resize, crop.

This module opens files and reports broken ones; `kdrun.data.decoding.colours` converts colours.
"""

import errno
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from kdrun.data.decoding import colours as pixels
from kdrun.data.decoding import levels as deep
from kdrun.data.decoding import rules as kind
from kdrun.data.decoding.formats import readable_formats
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.images import LazyImages
from kdrun.data.tree import FileList, Source, open_source
from kdrun.errors import BrokenImageError, KdrunError, MachineError, machine_error

LARGEST_PIXELS = 100_000_000  # per file; a few kilobytes can decompress to more than any memory
ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 swap width and height
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Frames of these formats are layers or sizes of one image, not animation frames or pages.
LAYERED = {"PSD", "ICO", "ICNS", "CUR"}
SAMPLE_SCALE = {"L;2": 85, "L;4": 17}  # grey PNGs of 2 and 4 bits, as Pillow unpacks them
MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG"}
PLAIN = PixelRules()
# Errors caused by the file. Any other is a machine failure and must not skip the file.
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
BLOCK_BYTES = 32 * 2**20
MOST_THREADS = 16
THREADS_FROM_BYTES = 16_384
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Form:
    """Shape of the decoded images: `size` (height, width) and 1 (grey) or 3 (colour) channels.

    Its repr is part of fingerprints and cache keys.
    """

    size: tuple[int, int]
    channels: int

    @property
    def nbytes(self) -> int:
        """Bytes of an image."""
        return self.channels * self.size[0] * self.size[1]

    @property
    def block(self) -> int:
        """Number of images to decode at once."""
        return max(1, min(BLOCK, BLOCK_BYTES // self.nbytes))


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    size: (height, width) after EXIF orientation. deep: more than 8 bits per channel.
    """

    size: tuple[int, int]
    grey: bool
    deep: bool = False


@dataclass(frozen=True)
class Decoded:
    """An image as uint8 `[C, H, W]`, and the conversions applied (see `rules`)."""

    pixels: np.ndarray
    kinds: frozenset[str]


def read_header(path: Source) -> Header:
    """Size and colour of an image without decoding it. Raises BrokenImageError."""
    with _reading(path), _opened(path) as image:
        width, height = image.size
        grey, is_deep = pixels.is_grey(image), deep.is_deep(image)
        # EXIF data of a PNG follow its pixels, so reading them decodes the image: avoid that for
        # squares. For a TIFF, Pillow already applies the orientation to the size.
        may_swap = width != height and image.format != "TIFF"
        if may_swap and image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        return Header((height, width), grey, is_deep)


def read_image(path: Source, form: Form, rules: PixelRules = PLAIN) -> np.ndarray:
    """Decode `path` to uint8 `[C, H, W]` of the given form; see `decode_image`."""
    return decode_image(path, form, rules).pixels


def decode_image(path: Source, form: Form, rules: PixelRules = PLAIN) -> Decoded:
    """Decode `path` to the given form, converting pixels by `rules`.

    Applies the EXIF orientation and reads the first frame or page. Resizes (bilinear, antialiased)
    to cover the form's size and crops the centre.

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
            image.draft(None, (2 * max(form.size),) * 2)  # decodes large JPEGs at reduced scale
            _scale_transparency(image)
            image.load()
            flat = image
        flat = pixels.flatten(flat, form.channels, rules, kinds)
        if turn is None:
            turn = image.getexif().get(ORIENTATION, 1)
            flat = flat.transpose(TURNS[turn]) if turn in TURNS else flat
        if turn in TURNS:  # Pillow rotates a TIFF itself
            kinds.add(kind.TURNED)
        if flat.size != (width, height):
            flat = _cover(flat, width, height)
        planes = b"".join(band.tobytes() for band in flat.split())  # faster than a transposed array
    array = np.frombuffer(planes, np.uint8).reshape(form.channels, height, width)
    return Decoded(array, frozenset(kinds))


def read_levels(path: Source) -> tuple[bool, float, float]:
    """(is float, minimum, maximum) of an image with more than 8 bits.

    Raises BrokenImageError for a damaged file.
    """
    with _reading(path), _opened(path) as image:
        levels = _levels(path, image)
        return levels.is_real, float(levels.values.min()), float(levels.values.max())


def _levels(path: Source, image: Image.Image) -> deep.Levels:
    """Full-precision pixels of an opened image with more than 8 bits."""
    if deep.deep_colour_mode(image) is None:
        return deep.single_channel_levels(image)
    with _opened(path) as second:
        return deep.colour_levels(image, second)


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent level of 2- and 4-bit grey PNGs; Pillow scales only their samples."""
    level = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(level, int):
        raw = image.tile[0][3] if image.tile else None  # type: ignore[attr-defined]
        image.info["transparency"] = level * SAMPLE_SCALE.get(str(raw), 1)


@contextmanager
def _opened(path: Source) -> Iterator[Image.Image]:
    """Open an image by its content, not its name, and never through an external program."""
    with open_source(path) as file, Image.open(file, formats=_formats(file)) as image:
        if image.width * image.height > LARGEST_PIXELS:
            raise Image.DecompressionBombError(
                f"{image.width}×{image.height} pixels are more than {LARGEST_PIXELS:,}"
            )
        yield image


def _formats(file: BinaryIO) -> tuple[str, ...]:
    """All readable formats, the likely one first: Pillow tries them in order."""
    start = file.read(4)
    file.seek(0)
    name = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
    formats = readable_formats()
    return formats if name is None else (name, *formats)


class _reading:  # noqa: N801 - reads as a statement: with _reading(path)
    """Turns errors of Pillow into a BrokenImageError that names the file."""

    def __init__(self, path: Source) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Image.DecompressionBombError):
            raise BrokenImageError(
                str(self.path),
                f"too large: {error}",
                f"{self.path} is too large to decode safely: {error}. Make it smaller.",
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
    """Why a file is not a readable image, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not isinstance(error, UnidentifiedImageError):
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


def in_blocks(
    function: Callable[[Source], ResultT], files: FileList, length: int = BLOCK, first: int = 0
) -> Iterator[list[ResultT]]:
    """Apply `function` to every file from `first` on, in order, in blocks of at most `length`.

    Small files are read in this thread: Pillow holds the GIL most of the time for them, so threads
    are slower. Large files are spread over all CPU cores, and the next block is begun before one is
    returned, so that the cores stay busy while the caller handles it.
    """
    blocks = (files.paths[start : start + length] for start in range(first, len(files), length))
    large = sum(files.sizes) >= THREADS_FROM_BYTES * len(files)
    workers = min(usable_cpus(), MOST_THREADS) if large else 1
    if workers == 1:
        for block in blocks:
            with _without_warnings():
                results = [function(path) for path in block]
            yield results
        return
    pool = ThreadPoolExecutor(workers)
    running: deque[list[Future[ResultT]]] = deque()
    try:
        with _without_warnings():
            for block in blocks:
                running.append([pool.submit(function, path) for path in block])
                if len(running) > 1:
                    yield [future.result() for future in running.popleft()]
            while running:
                yield [future.result() for future in running.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings on odd EXIF data and large images; unreadable files still raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class DecodedImages(LazyImages):
    """Image files that are decoded on every access.

    sums: CRC-32 of each image's pixels, if an earlier pass computed them.
    """

    def __init__(
        self,
        paths: Sequence[Source],
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
