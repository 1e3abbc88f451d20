"""The one console that everything printed goes through."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from functools import cache
from typing import TextIO

from rich.console import Console

from kdrun.limits import visible
from kdrun.world import world

PLAIN_WIDTH = 160


class Screen(Console):
    """Standard output. Once a write has failed it is lost, and all further output is dropped."""

    lost = False

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError; rich would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def lose(self, error: OSError) -> str:
        """Drop all further output; returns what happened, for a message."""
        self.lost = self.quiet = True
        discard(sys.stdout)
        if error.errno in (errno.EPIPE, errno.EBADF):
            return "standard output was closed"
        if error.errno == errno.EIO:
            return "the terminal was closed"
        return f"standard output cannot be written: {error.strerror or error}"


def discard(stream: TextIO | None) -> None:
    """Point a stream that cannot be written at nothing, so that Python's last flush succeeds."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # type: ignore[union-attr]
        os.close(nothing)


@cache
def console() -> Screen:
    """The console of standard output, shared by tables, bars and messages."""
    screen = _screen()
    if not screen.is_terminal:  # a pipe has no width: nothing is cut there
        screen.width = PLAIN_WIDTH
    return screen


def _screen(stderr: bool = False) -> Screen:
    """A console; in a notebook a plain one.

    Rich would write every line as a separate HTML output there. Jupyter also sets FORCE_COLOR,
    which is no sign of a terminal.
    """
    screen = Screen(stderr=stderr, highlight=False, soft_wrap=True)
    if not screen.is_jupyter:
        return screen
    return Screen(
        stderr=stderr,
        highlight=False,
        soft_wrap=True,
        force_jupyter=False,
        force_terminal=False,
        no_color=True,
    )


def is_live(choice: str) -> bool:
    """Whether bars may be drawn: `rich` and `plain` decide, `auto` asks the terminal."""
    if choice == "auto":
        return console().is_terminal and os.environ.get("TERM") != "dumb"
    return choice == "rich"


def error(text: str) -> None:
    """Print an error on standard error; of several processes the first one does."""
    _print_error("error:", text, "bold red")


def interrupted(text: str) -> None:
    """Print on standard error what an interrupted command leaves behind."""
    _print_error("interrupted:", text, "bold yellow")


def bug(failure: BaseException) -> None:
    """Print the traceback of an error that no user should meet, and that it is a bug."""
    traceback.print_exception(failure, file=sys.stderr)
    error("This is a bug in kdrun, not a mistake of yours. Please report it with the lines above.")


def note(text: str) -> None:
    """Print a line on standard error that is no error."""
    _print_error("", text, "")


def _print_error(mark: str, text: str, style: str) -> None:
    if not world().is_main:
        return
    stderr = _screen(stderr=True)
    try:
        if mark:
            stderr.print(mark, style=style, end=" ")
        stderr.print(visible(text), markup=False)
    except OSError:  # closed as well: the exit code and the log remain
        discard(sys.stderr)
