"""Rules that convert the pixels of a data set, and the kinds of conversion that are counted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from kdrun.errors import ConfigError

PIXEL_RULES = "pixel_rules"  # the key of a network card that holds `PixelRules.to_dict()`
CROP_RATIO = "crop_ratio"  # key on network cards: share of the stored image that they see
WHITE = (255, 255, 255)
# Kinds of conversion, counted per image.
DEEP, REAL, TRANSPARENT, PALETTE = "deep", "real", "transparent", "palette"
PROFILE, BAD_PROFILE, GAMMA, CLIPPED = "profile", "bad profile", "gamma", "clipped"
SPACES = ("CMYK", "LAB", "HSV", "YCbCr")  # modes, and kinds under the same names
FRAMES, TURNED, TO_COLOUR, TO_GREY = "frames", "turned", "to colour", "to grey"

Range = tuple[float, float]


@dataclass(frozen=True)
class PixelRules:
    """How the images of a data set become 8-bit pixels.

    Its repr is part of fingerprints and cache keys.

    background: RGB 0..255 behind transparent parts.
    whole, real: the (low, high) mapped to 0..255, for integers of more than 8 bits and for floats;
    None: `usual_range` of each image.
    """

    background: tuple[int, int, int] = WHITE
    whole: Range | None = None
    real: Range | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values for `from_dict`."""
        return {
            "background": list(self.background),
            "whole": None if self.whole is None else list(self.whole),
            "real": None if self.real is None else list(self.real),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PixelRules":
        """Inverse of `to_dict`. Raises KeyError, TypeError or ValueError for invalid values."""
        red, green, blue = (int(level) for level in values["background"])
        ranges = []
        for key in ("whole", "real"):
            pair = values[key]
            if pair is not None and not float(pair[0]) < float(pair[1]):
                raise ValueError(f"{key} is {pair}")
            ranges.append(None if pair is None else (float(pair[0]), float(pair[1])))
        return cls((red, green, blue), *ranges)

    @classmethod
    def of_card(cls, extra: Mapping[str, Any]) -> "PixelRules":
        """The rules in `extra` of a network card; the usual ones if it holds none."""
        try:
            return cls.from_dict(extra[PIXEL_RULES])
        except (KeyError, TypeError, ValueError, IndexError):
            return cls()


def parse_background(value: Any) -> tuple[int, int, int]:
    """Parse `dataset.background`: a colour name, `#rrggbb`, a grey level or [red, green, blue].

    Raises ConfigError for anything else.
    """
    if isinstance(value, str) and value.strip():
        try:
            return ImageColor.getrgb(value.strip())[:3]
        except ValueError:
            pass
    levels = [value] * 3 if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(levels, Sequence) and not isinstance(levels, str) and len(levels) in (1, 3):
        levels = list(levels) * (3 // len(levels))
        if all(type(level) is int and 0 <= level <= 255 for level in levels):
            return levels[0], levels[1], levels[2]
    raise ConfigError(
        f"dataset.background={value} must be a colour: a name (white, black), '#rrggbb', a grey "
        "level 0..255, or [red, green, blue]."
    )


def parse_value_range(value: Any) -> Range | None:
    """Parse `dataset.value_range`: (low, high), or None for auto. Raises ConfigError otherwise."""
    if value == "auto":
        return None
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == 2 and all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]:
            return float(numbers[0]), float(numbers[1])
    raise ConfigError(
        f"dataset.value_range={value} must be auto, or [low, high] with low below high, e.g. "
        "[0,4095]."
    )
