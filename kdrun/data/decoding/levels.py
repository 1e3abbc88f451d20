"""Images with more than 8 bits per channel: read at full precision and scaled to 8 bits.

Pillow reads 16- and 32-bit grey images at full precision, but keeps only the upper byte of 16-bit
colour images.
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
# Usual maxima of 8- to 16-bit and float images.
USUAL_TOPS = (1, 255, 1023, 4095, 16383, 65535)


@dataclass(frozen=True)
class Levels:
    """Pixels with more than 8 bits.

    values: `[H, W]` or `[H, W, 3]`, integers or floats, all finite.
    alpha: `[H, W]` uint8, or None for opaque images.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def is_real(self) -> bool:
        """Whether the values are floats."""
        return self.values.dtype.kind == "f"


def is_deep(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded image has more than 8 bits per channel."""
    return image.mode[0] in "IF" or deep_colour_mode(image) is not None


def deep_colour_mode(image: Image.Image) -> str | None:
    """Raw mode of a 16-bit colour image that Pillow's `load` would truncate to 8 bits, or None."""
    if image.mode not in ("RGB", "RGBA"):
        return None
    for tile in getattr(image, "tile", None) or ():
        args = tile[3]
        raw = args[0] if isinstance(args, tuple) and args else args
        if isinstance(raw, str) and DEEP_COLOUR.fullmatch(raw):
            return raw
    return None


def single_channel_levels(image: Image.Image) -> Levels:
    """Pixels of an image of mode I, I;16* or F. Raises ValueError for NaN and infinity."""
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
    """16-bit pixels of a colour image, from the same file opened twice and not loaded.

    Pillow keeps the upper byte of each value; reading with the opposite byte order gives the lower.
    """
    raw = deep_colour_mode(first)
    assert raw is not None
    if getattr(first, "tag_v2", {}).get(PLANES, 1) == SEPARATE:
        raise ValueError("16-bit channels in separate planes; save it with interleaved channels")
    if raw.startswith("LA"):  # grey and alpha: four bytes per pixel
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
    """Pixels of a not yet loaded image, unpacked with another raw mode."""
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile  # type: ignore[attr-defined]
    ]
    return _loaded(image)


def _loaded(image: Image.Image) -> np.ndarray:
    """Pixels of an image; np.asarray alone would hide errors in damaged files."""
    image.load()
    return np.asarray(image)


def usual_range(low: float, high: float, real: bool) -> Range:
    """Guess the nominal range of values that span `low` to `high`.

    The smallest of 0..1, 0..255 and 0 to the maximum of 10, 12, 14 or 16 bits that contains them,
    if they use at least half of it (a 12-bit camera: 0..4095). Otherwise `low` to `high`.
    """
    if real and -1 <= low < 0 and high <= 1 and high - low >= 1:
        return (-1.0, 1.0)
    top = next((top for top in USUAL_TOPS if high <= top), None)
    if low >= 0 and top is not None and (2 * (high - low) >= top or low == high):
        return (0.0, float(top))
    return (float(low), float(high)) if high > low else (float(low) - 1, float(low))


def eight_bits(levels: Levels, rules: PixelRules, kinds: set[str]) -> Image.Image:
    """Scale levels linearly to 0..255 (halves round up, clipped): an L, LA, RGB or RGBA image."""
    kinds.add(kind.REAL if levels.is_real else kind.DEEP)
    value_range = rules.real if levels.is_real else rules.whole
    if value_range is None:
        values = levels.values
        value_range = usual_range(float(values.min()), float(values.max()), levels.is_real)
    low, high = value_range
    if levels.values.min() < low or levels.values.max() > high:
        kinds.add(kind.CLIPPED)
    scaled = (levels.values.astype(np.float64) - low) * (255 / (high - low))
    pixels = np.floor(np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)
    image = Image.fromarray(pixels)
    if levels.alpha is not None:
        image.putalpha(Image.fromarray(levels.alpha))
    return image
