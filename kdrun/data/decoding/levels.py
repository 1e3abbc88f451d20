"""Pixels of more than 8 bits: read without loss, and scaled to 8 bits from a range.

Pillow reads a grey image of 16 or 32 bits whole, but keeps only the upper byte of a colour image.
"""

import re
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kdrun.data.decoding import rules as kind
from kdrun.data.decoding.rules import PixelRules, Range

DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX|LA);16[BLN]")
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
PLANES, SEPARATE = 284, 2
# Upper ends that files of 8 to 16 bits, and floats, are usually scaled to.
USUAL_TOPS = (1, 255, 1023, 4095, 16383, 65535)


@dataclass(frozen=True)
class Levels:
    """Pixels of more than 8 bits.

    values: `[H, W]` or `[H, W, 3]`, integers or floats, all finite.
    alpha: `[H, W]` uint8, or None where nothing can be transparent.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def is_real(self) -> bool:
        """Whether they are floats."""
        return self.values.dtype.kind == "f"


def is_deep(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded image has pixels of more than 8 bits."""
    return image.mode[0] in "IF" or deep_colour_mode(image) is not None


def deep_colour_mode(image: Image.Image) -> str | None:
    """Pillow's raw mode of an image with 16 bits per channel that `load` would cut to 8."""
    if image.mode not in ("RGB", "RGBA"):
        return None
    for tile in getattr(image, "tile", None) or ():
        args = tile[3]
        raw = args[0] if isinstance(args, tuple) and args else args
        if isinstance(raw, str) and DEEP_COLOUR.fullmatch(raw):
            return raw
    return None


def single_channel_levels(image: Image.Image) -> Levels:
    """The pixels of an image of mode I, I;16* or F. Raises ValueError for NaN and infinity."""
    values = _loaded(image)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("pixels that are NaN or infinite")
        return Levels(values.astype(np.float64))
    values = values.astype(np.int64)
    clear = image.info.get("transparency")
    alpha = np.where(values == clear, 0, 255).astype(np.uint8) if isinstance(clear, int) else None
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 65535 - values
    return Levels(values, alpha)


def colour_levels(first: Image.Image, second: Image.Image) -> Levels:
    """All 16 bits of a colour image, from the same file opened twice and not loaded.

    Pillow keeps the upper byte of each value. The lower one comes from reading the file in the
    other byte order.
    """
    raw = deep_colour_mode(first)
    assert raw is not None
    if getattr(first, "tag_v2", {}).get(PLANES, 1) == SEPARATE:
        raise ValueError("16-bit channels in separate planes; save it with interleaved channels")
    if raw.startswith("LA"):  # grey and alpha: the four bytes of a pixel as they are
        parts = _read_as(first, "RGBA").astype(np.int64)
        return Levels(parts[..., 0] * 256 + parts[..., 1], parts[..., 2].astype(np.uint8))
    big = raw.endswith("B") or (raw.endswith("N") and sys.byteorder == "big")
    clear = first.info.get("transparency")
    lower = _read_as(second, f"{raw[:-1]}{'L' if big else 'B'}")
    values = _loaded(first).astype(np.int64) * 256 + lower
    if values.shape[2] == 4:
        return Levels(values[..., :3], (values[..., 3] // 256).astype(np.uint8))
    if isinstance(clear, tuple) and len(clear) == 3:
        return Levels(values, np.where((values == clear).all(2), 0, 255).astype(np.uint8))
    return Levels(values)


def _read_as(image: Image.Image, raw: str) -> np.ndarray:
    """The pixels of an image that is not loaded yet, unpacked by another raw mode."""
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile  # type: ignore[attr-defined]
    ]
    return _loaded(image)


def _loaded(image: Image.Image) -> np.ndarray:
    """The pixels of an image; np.asarray alone would hide an error in a damaged file."""
    image.load()
    return np.asarray(image)


def usual_range(low: float, high: float, real: bool) -> Range:
    """The range that values from `low` to `high` were probably written for.

    Zero to 255, or to the top of 10, 12, 14 or 16 bits, or to 1, whichever holds them all, where
    they use at least half of it (a 12-bit camera: 0..4095). Otherwise exactly the values used.
    """
    if real and -1 <= low < 0 and high <= 1 and high - low >= 1:
        return (-1.0, 1.0)
    top = next((top for top in USUAL_TOPS if high <= top), None)
    if low >= 0 and top is not None and (2 * (high - low) >= top or low == high):
        return (0.0, float(top))
    return (float(low), float(high)) if high > low else (float(low) - 1, float(low))


def eight_bits(levels: Levels, rules: PixelRules, kinds: set[str]) -> Image.Image:
    """Levels scaled linearly to 0..255, halves up, clipped: an L, LA, RGB or RGBA image."""
    kinds.add(kind.REAL if levels.is_real else kind.DEEP)
    chosen = rules.real if levels.is_real else rules.whole
    if chosen is None:
        values = levels.values
        chosen = usual_range(float(values.min()), float(values.max()), levels.is_real)
    low, high = chosen
    if levels.values.min() < low or levels.values.max() > high:
        kinds.add(kind.CLIPPED)
    scaled = (levels.values.astype(np.float64) - low) * (255 / (high - low))
    pixels = np.floor(np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)
    image = Image.fromarray(pixels)
    if levels.alpha is not None:
        image.putalpha(Image.fromarray(levels.alpha))
    return image
