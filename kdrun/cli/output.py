"""Plain text on standard output: no colours, no wrapping, nothing cut, safe to pipe."""

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from kdrun.errors import MachineError
from kdrun.limits import visible


def say(text: str) -> None:
    """Write `text` and a newline; control characters are escaped."""
    text = visible(text)
    try:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise lost(error) from None


def flush() -> None:
    """Flush the buffer. Raises MachineError where standard output cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise lost(error) from None


def is_writable() -> bool:
    """Whether standard output still takes a line; an empty one is written to find out."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def lost(error: OSError) -> MachineError:
    """The error for an unwritable standard output; drops its buffer."""
    from kdrun.ui.console import discard  # imports rich

    discard(sys.stdout)
    return MachineError(f"Standard output cannot be written: {error.strerror or error}.")


def prepare_streams() -> None:
    """Make standard streams usable: characters that a terminal lacks are escaped.

    A closed stream is replaced by one that drops everything, so that no file that is opened later
    gets its number and with it what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            if getattr(sys, name) is not None:
                continue
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY
        nothing = os.open(os.devnull, flags)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def slow_start(text: str) -> Iterator[None]:
    """Write `text` to standard error if the block takes longer than `Progress.FIRST_SECONDS`."""

    def write() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    timer = threading.Timer(Progress.FIRST_SECONDS, write)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Progress:
    """A line on standard error for work that takes longer than a moment, then every few seconds.

    Standard output stays what the command prints.
    """

    FIRST_SECONDS, NEXT_SECONDS, LARGE = 0.7, 5.0, 40

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self._due = time.monotonic() + self.FIRST_SECONDS
        if total >= self.LARGE:  # takes long for sure
            self._due = 0.0
            self.show(0)

    def show(self, done: int) -> None:
        """`done` of the total are finished."""
        if time.monotonic() < self._due or done >= self.total:
            return
        self._due = time.monotonic() + self.NEXT_SECONDS
        with contextlib.suppress(OSError, ValueError):  # closed, or a full device
            sys.stderr.write(f"{self.what}: {done} of {self.total}\n")
