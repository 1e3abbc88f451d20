"""Image sizes as users write them."""

from typing import Any

from kdrun.errors import ConfigError

MOST_NETWORKS = 1000  # of one run
MOST_PIXELS = 100_000_000  # of one image, as in files


def check_networks(setting: str, count: int) -> None:
    """Raise ConfigError for a setting that makes one run train more networks than is allowed."""
    if count > MOST_NETWORKS:
        raise ConfigError(
            f"{setting}={count:,} makes one run train {count:,} networks; at most "
            f"{MOST_NETWORKS:,} are allowed."
        )


def image_size(value: Any, where: str) -> tuple[int, int] | None:
    """(H, W) of a side, or of [height, width]."""
    if value is None:
        return None
    sides = value if isinstance(value, list) else [value, value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise ConfigError(f"{where}={value} must be a number of pixels, [height, width] or null.")
    check_pixels((sides[0], sides[1]), where)
    return sides[0], sides[1]


def check_pixels(size: tuple[int, int], setting: str) -> None:
    """Raise ConfigError for images of more pixels than are read from any file."""
    if size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(
            f"{setting}={size[0]}×{size[1]} asks for images of {size[0] * size[1]:,} pixels; at "
            f"most {MOST_PIXELS:,} are allowed."
        )
