"""Errors raised by user code: a network, a loss, a data set function, a logger.

They are reported with file, line, message and only the frames of user files, and end in exit code
2; a full traceback through kdrun would hide the relevant line.
"""

import os
import sysconfig
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from traceback import FrameSummary

from kdrun.errors import EXIT_MISTAKE, KdrunError

KDRUN, LIBRARY, USER = "kdrun", "library", "user"
MOST_FRAMES = 6


class UserCodeError(KdrunError):
    """User code raised an error. The first line of the text says which and where."""

    exit_code = EXIT_MISTAKE


def user_code_error(error: BaseException) -> UserCodeError | None:
    """The error as a UserCodeError; None if kdrun, or a library called by kdrun, raised it.

    The innermost frame outside of libraries decides.
    """
    if isinstance(error, KdrunError) or not isinstance(error, Exception):
        return None
    if isinstance(error, SyntaxError) and error.filename and owner(error.filename) == USER:
        return _syntax_error(error)
    frames = _since_kdrun(traceback.extract_tb(error.__traceback__))
    relevant = [frame for frame in frames if owner(frame.filename) != LIBRARY]
    if not relevant or owner(relevant[-1].filename) != USER:
        return None
    place, last = relevant[-1], frames[-1]
    what = "".join(traceback.format_exception_only(error)).strip().partition("\n")[0]
    name = os.path.basename(place.filename)
    lines = [f"Your code raised {what} ({name}, line {place.lineno}, in {place.name})"]
    shown = [frame for frame in relevant if owner(frame.filename) == USER][-MOST_FRAMES:]
    lines += [line for frame in shown for line in _frame_lines(frame)]
    if last is not place:
        lines.append(f"  raised in {_short(last.filename)}, line {last.lineno}, in {last.name}")
    return UserCodeError("\n".join(lines))


def owner(filename: str) -> str:
    """Owner of a file: `KDRUN`, `LIBRARY` (standard library and installed packages) or `USER`."""
    if filename.startswith("<"):
        return LIBRARY
    path = os.path.realpath(filename)
    if Path(path).is_relative_to(_kdrun()):
        return KDRUN
    installed = any(Path(path).is_relative_to(root) for root in _installed())
    packages = {"site-packages", "dist-packages"} & set(Path(path).parts)
    return LIBRARY if installed or packages else USER


def _since_kdrun(frames: Sequence[FrameSummary]) -> list[FrameSummary]:
    """The frames from the first one of kdrun on, without its caller."""
    for number, frame in enumerate(frames):
        if owner(frame.filename) == KDRUN:
            return list(frames[number:])
    return []


def _frame_lines(frame: FrameSummary) -> list[str]:
    lines = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}']
    return [*lines, f"    {frame.line}"] if frame.line else lines


def _syntax_error(error: SyntaxError) -> UserCodeError:
    name = os.path.basename(str(error.filename))
    lines = [f"Your code raised {type(error).__name__}: {error.msg} ({name}, line {error.lineno})"]
    shown = "".join(traceback.format_exception_only(error)).rstrip().splitlines()[:-1]
    return UserCodeError("\n".join([*lines, *shown]))


def _short(filename: str) -> str:
    """Path of a library file relative to site-packages."""
    parts = Path(filename).parts
    for marker in ("site-packages", "dist-packages"):
        if marker in parts:
            return "/".join(parts[parts.index(marker) + 1 :])
    return os.path.basename(filename)


@cache
def _kdrun() -> str:
    return os.path.realpath(os.path.dirname(__file__))


@cache
def _installed() -> tuple[str, ...]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_path(kind) for kind in kinds]
    return tuple(os.path.realpath(path) for path in paths if path)
