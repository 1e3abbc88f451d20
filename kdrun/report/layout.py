"""Line breaks of headings and cells, the same on the screen and on the page."""

import textwrap
from collections.abc import Iterable

NBSP = "\u00a0"
# A word longer than this is broken.
LONGEST_WORD = 24


def heading_lines(title: str) -> list[str]:
    """A heading in two lines at most, as narrow as possible."""
    return wrapped(title, heading_width(title))


def heading_width(title: str) -> int:
    """The least width at which a heading takes two lines."""
    return next(w for w in range(1, len(title) + 2) if _fits(title, w))


def longest_word(texts: Iterable[str]) -> int:
    """The width below which a word of `texts` would be broken."""
    words = (len(word) for text in texts for word in _glued(text).split(" "))
    return min(LONGEST_WORD, max(words, default=1))


def wrapped(text: str, width: int) -> list[str]:
    """Lines broken between words, never before a unit; only words longer than a line are broken."""
    lines = textwrap.wrap(_glued(text), max(width, 1), break_on_hyphens=False)
    return [line.replace(NBSP, " ") for line in lines]


def paragraph(text: str, width: int) -> list[str]:
    """A sentence in lines of the same indent; no word is broken, so that paths can be copied."""
    glued = _glued(text)
    indent = " " * (len(glued) - len(glued.lstrip(" ")))
    lines = textwrap.wrap(
        glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(NBSP, " ") for line in lines]


def _fits(title: str, width: int) -> bool:
    longest = max(map(len, _glued(title).split(" ")))
    return longest <= width and len(wrapped(title, width)) <= 2


def _glued(text: str) -> str:
    """Without a line break before a unit or around ±."""
    return text.replace(" %", f"{NBSP}%").replace(" ± ", f"{NBSP}±{NBSP}")
