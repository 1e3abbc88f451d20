"""Lists in messages, and names compared without their punctuation."""

from collections.abc import Sequence
from typing import Any


def abbreviate(items: Sequence[Any], most: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more:,} more" if more > 0 else "")


def alphanumeric(name: str) -> str:
    """The letters and digits of a name, in lower case: `image_id` and `Image ID` are equal."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
