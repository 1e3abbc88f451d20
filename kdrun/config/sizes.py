"""Image sizes as users write them."""

from typing import Any

from kdrun.errors import ConfigError


def image_size(value: Any, where: str) -> tuple[int, int] | None:
    """(H, W) of a side, or of [height, width]."""
    if value is None:
        return None
    sides = value if isinstance(value, list) else [value, value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise ConfigError(f"{where}={value} must be a number of pixels, [height, width] or null.")
    return sides[0], sides[1]
