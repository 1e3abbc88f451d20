"""Lists in messages."""

from collections.abc import Sequence
from typing import Any


def abbreviate(items: Sequence[Any], most: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more:,} more" if more > 0 else "")
