"""Errors for the user, and their exit codes.

A message is one or two sentences: what is wrong, then what to type instead.
"""

import difflib
import errno
import os
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


class KdrunError(Exception):
    """Base class of errors with a message for the user; shown without a traceback."""

    exit_code = EXIT_FAILED


class ConfigError(KdrunError):
    """A setting that does not exist, does not fit or makes no sense."""

    exit_code = EXIT_MISTAKE


class ShapeError(ConfigError, ValueError):
    """Tensors whose shapes a loss cannot compare; raised where a loss is used as a criterion."""


class DataError(KdrunError):
    """Data that is missing, damaged or does not match the configuration."""

    exit_code = EXIT_MISTAKE


class BrokenImageError(DataError):
    """An unreadable image file. source: its path. reason: why, in a few words."""

    def __init__(self, source: str, reason: str, text: str) -> None:
        super().__init__(text)
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type["BrokenImageError"], tuple[str, str, str]]:
        return BrokenImageError, (self.source, self.reason, str(self))


class AbsentDataError(DataError):
    """A known data set that is not on this machine and must not be downloaded."""


class CheckpointError(KdrunError):
    """A checkpoint that is missing, damaged, unsafe to load or does not fit the network."""

    exit_code = EXIT_MISTAKE


class TrainingError(KdrunError):
    """Training cannot continue, for example because the loss is no longer finite."""


class TimeLimitError(KdrunError):
    """A sweep job exceeded its time limit; its saved state is kept."""


class MissingExtraError(ConfigError):
    """An optional package is missing; the message contains the install command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'kdrun[{extra}]'"
        )


class MachineError(KdrunError):
    """A machine failure: full disk, missing write permission, out of memory, no compiler."""


class Interrupted(KeyboardInterrupt):
    """The run was interrupted (Ctrl-C or SIGTERM) and has saved its state."""


# System errors that are machine failures, and the advice for each. Any other system error may be a
# bug of kdrun and keeps its traceback. {elsewhere}: how to choose another place to write.
FULL = (errno.ENOSPC, errno.EDQUOT)
REMEDIES = {
    errno.ENOSPC: "free some space{elsewhere}",
    errno.EDQUOT: "free some space{elsewhere}",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f){elsewhere}",
    errno.EACCES: "check the permissions{elsewhere}",
    errno.EPERM: "check the permissions{elsewhere}",
    errno.EROFS: "the disk is read-only: remount it{elsewhere}",
    errno.EIO: "the disk fails: check it{elsewhere}",
    errno.EMFILE: "close other programs or raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs or raise the limit on open files",
    errno.ENOMEM: "close other programs or take a smaller batch_size",
}
# Invalid paths, or paths of the wrong type, which the user must change.
WRONG_PATHS = {
    errno.ENAMETOOLONG: "the name is too long for this file system (255 bytes on most): shorten it",
    errno.ELOOP: "it is, or is below, a link that is circular or must not be followed: "
    "remove the link",
    errno.ENOTDIR: "a parent is a file instead of a folder: move that file",
    errno.EISDIR: "it is a folder, but must be a file: move it",
}
LONGEST_SHOWN = 120  # characters of a path in a message
OUTPUT_ROOT = "set output_root=... to another disk"


def known_error(error: BaseException, elsewhere: str = OUTPUT_ROOT) -> KdrunError | None:
    """Convert machine failures, invalid paths and errors of user code; None for other errors.

    elsewhere: how to choose another place to write; empty if that is impossible.
    """
    if isinstance(error, OSError) and error.errno in WRONG_PATHS and error.filename:
        return ConfigError(f"{_shown(error.filename)}: {WRONG_PATHS[error.errno]}.")
    from kdrun.user_code import user_code_error  # imports this module

    return machine_error(error, elsewhere) or user_code_error(error)


def machine_error(error: BaseException, elsewhere: str = OUTPUT_ROOT) -> MachineError | None:
    """Convert a machine failure to a MachineError; None for other errors."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        text = error.strerror or type(error).__name__
        if not error.filename:  # a pipe or terminal: another folder does not help
            return MachineError(f"{text}: {REMEDIES[error.errno].format(elsewhere='')}.")
        disk = f" on the disk at {mount_of(error.filename)}" if error.errno in FULL else ""
        place = f"{disk} or {elsewhere}" if elsewhere else disk
        remedy = REMEDIES[error.errno].format(elsewhere=place)
        return MachineError(f"{text} ({_shown(error.filename)}): {remedy}.")
    if is_out_of_memory(error):
        return MachineError(
            "Out of memory: try a smaller batch_size or schedule.eval_batch_size, or "
            "dataset.resident=false."
        )
    if is_compiler_error(error):
        first = str(error).strip().partition("\n")[0]
        return MachineError(
            f"torch.compile failed: {first}. On a CPU it needs a working C++ compiler (g++, clang);"
            " compile=false and teacher.compile=false do without."
        )
    return None


def mount_of(path: str | bytes | os.PathLike[str]) -> str:
    """Mount point of a path's disk."""
    place = os.path.realpath(os.fsdecode(path))
    while place != os.path.dirname(place) and not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


def _shown(path: str | bytes | int) -> str:
    text = str(path) if isinstance(path, int) else os.fsdecode(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python or torch, on CPU or GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def is_compiler_error(error: BaseException) -> bool:
    """Whether torch.compile could not build a network: no compiler, or one that fails."""
    return any(
        kind.__module__.startswith("torch._inductor.") or kind.__name__ == "BackendCompilerFailed"
        for kind in type(error).__mro__
    )


def closest(word: str, options: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The option most similar to `word`; None if nothing is. cutoff: least similarity, 0 to 1."""
    matches = difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the closest option; empty if nothing is close."""
    match = closest(word, options)
    return f" Did you mean '{match}'?" if match else ""
