"""Line breaks of headings and cells, the same on the screen and on the page."""

import re
import textwrap
from collections.abc import Iterable

NBSP = "\u00a0"
# A word longer than this is broken.
LONGEST_WORD = 24
# Where a long word is broken: after these, except within numbers.
SEPARATOR = re.compile(r"(?<=[=+,/])|(?<=\.)(?=[a-z_])")


def heading_lines(title: str) -> list[str]:
    """A heading in two lines at most, as narrow as possible."""
    return wrapped(title, heading_width(title))


def heading_width(title: str) -> int:
    """The least width at which a heading takes two lines."""
    return next(w for w in range(1, len(title) + 2) if _fits(title, w))


def longest_word(texts: Iterable[str]) -> int:
    """The width below which a word of `texts` is broken."""
    return _longest(word for text in texts for word in _glued(text).split(" "))


def longest_piece(texts: Iterable[str]) -> int:
    """The width below which words are broken elsewhere than at a separator."""
    words = (word for text in texts for word in _glued(text).split(" "))
    return _longest(piece for word in words for piece in SEPARATOR.split(word))


def wrapped(text: str, width: int) -> list[str]:
    """Lines broken between words, never before a unit; longer words are broken at separators."""
    lines = []
    line = ""
    for word in _glued(text).split(" "):
        if line and len(line) + 1 + len(word) <= width:
            line += f" {word}"
            continue
        if line:
            lines.append(line)
        while len(word) > width:
            ends = [at.start() for at in SEPARATOR.finditer(word) if 0 < at.start() <= width]
            cut = ends[-1] if ends else width
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    return [piece.replace(NBSP, " ") for piece in [*lines, line]]


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


def _longest(words: Iterable[str]) -> int:
    return min(LONGEST_WORD, max(map(len, words), default=1))


def _glued(text: str) -> str:
    """Without a line break before a unit or around ±."""
    return text.replace(" %", f"{NBSP}%").replace(" ± ", f"{NBSP}±{NBSP}")
