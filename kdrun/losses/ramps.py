"""How the weight of a loss changes over the epochs."""

import math


def linear_rise(epoch: int, full: int) -> float:
    """Share of the weight in epoch `epoch` (from 0), full in epoch `full` (from 1); 0: at once."""
    return min((epoch + 1) / full, 1.0) if full else 1.0


def linear_fall(epoch: int, length: int) -> float:
    """Share of the weight in epoch `epoch` (from 0), zero after `length` epochs; 0: constant."""
    return max(1.0 - epoch / length, 0.0) if length else 1.0


def cosine_fall(epoch: int, epochs: int, after: int) -> float:
    """Share in epoch `epoch` (from 0) of `epochs`: full until `after`, then half a cosine to 0.

    after = 0: constant.
    """
    if after == 0 or epoch < after:
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (epoch - after) / max(epochs - after, 1)))
