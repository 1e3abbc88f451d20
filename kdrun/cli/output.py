"""Plain text on standard output: no colours, no wrapping, nothing cut, safe to pipe."""

import sys

from kdrun.limits import visible


def say(text: str) -> None:
    """Write `text` and a line's end; what would command the terminal is written out."""
    text = visible(text)
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
