"""Plain text on standard output: no colours, no wrapping, nothing cut, safe to pipe."""

import sys


def say(text: str) -> None:
    """Write `text` and a line's end."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
