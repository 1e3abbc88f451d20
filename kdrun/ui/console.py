"""The one console that everything printed goes through."""

import os
from functools import cache

from rich.console import Console

from kdrun.limits import visible
from kdrun.world import world

PLAIN_WIDTH = 160


@cache
def console() -> Console:
    """The console of standard output, shared by tables, bars and messages."""
    screen = Console(highlight=False, soft_wrap=True)
    if not screen.is_terminal:  # a pipe has no width: nothing is cut there
        screen.width = PLAIN_WIDTH
    return screen


def is_live(choice: str) -> bool:
    """Whether bars may be drawn: `rich` and `plain` decide, `auto` asks the terminal."""
    if choice == "auto":
        return console().is_terminal and os.environ.get("TERM") != "dumb"
    return choice == "rich"


def error(text: str) -> None:
    """Say on standard error what went wrong; of several processes the first one does."""
    if not world().is_main:
        return
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    stderr.print("error:", style="bold red", end=" ")
    stderr.print(visible(text), markup=False)
