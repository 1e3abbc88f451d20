"""The errors a user can meet, and the exit code each ends in.

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
    """Base of all errors whose text is meant for the user; shown without a traceback."""

    exit_code = EXIT_FAILED


class ConfigError(KdrunError):
    """The user asked for something that does not exist, does not fit or makes no sense."""

    exit_code = EXIT_MISTAKE


class ShapeError(ConfigError, ValueError):
    """Tensors whose shapes a loss cannot compare; raised where a loss is used as a criterion."""


class DataError(KdrunError):
    """The data the user named is missing, damaged or not what the configuration says."""

    exit_code = EXIT_MISTAKE


class BrokenImageError(DataError):
    """An image file that cannot be read. source: its path. reason: why, in a few words."""

    def __init__(self, source: str, reason: str, text: str) -> None:
        super().__init__(text)
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type["BrokenImageError"], tuple[str, str, str]]:
        return BrokenImageError, (self.source, self.reason, str(self))


class AbsentDataError(DataError):
    """Known data that are not on this machine and may not be downloaded."""


class CheckpointError(KdrunError):
    """A checkpoint is missing, damaged, unsafe to load or does not fit the network."""

    exit_code = EXIT_MISTAKE


class TrainingError(KdrunError):
    """Training cannot go on, for example because the loss is no longer finite."""


class TimeLimitError(KdrunError):
    """A job of a sweep took longer than it may; what it had saved is kept."""


class MissingExtraError(ConfigError):
    """An optional package is needed; the message names the install line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'kdrun[{extra}]'"
        )


class MachineError(KdrunError):
    """The machine cannot do it: a full disk, a folder that cannot be written, no memory left."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved its state."""


# What a system refuses whoever asks, and what to do; other errors of the system may be mistakes of
# kdrun, whose traceback is wanted. {elsewhere}: how the command is given another place to write.
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
# Paths that no file system takes, or that lead to the wrong kind of thing: the user's to change.
WRONG_PATHS = {
    errno.ENAMETOOLONG: "the name is too long for this file system (255 bytes on most): shorten it",
    errno.ELOOP: "it is a link, or below a link, that leads in a circle or must not be followed: "
    "remove the link",
    errno.ENOTDIR: "something above it is a file and no folder: move that file",
    errno.EISDIR: "it is a folder where a file is needed: move it",
}
LONGEST_SHOWN = 120  # characters of a path in a message
OUTPUT_ROOT = "set output_root=... to another disk"


def known_error(error: BaseException, elsewhere: str = OUTPUT_ROOT) -> KdrunError | None:
    """What the machine could not do, a path that cannot be, or an error of the user's own code.

    None for others.

    elsewhere: how the command is given another place to write; empty when it cannot be.
    """
    if isinstance(error, OSError) and error.errno in WRONG_PATHS and error.filename:
        return ConfigError(f"{_shown(error.filename)}: {WRONG_PATHS[error.errno]}.")
    from kdrun.user_code import user_code_error  # it builds on this module

    return machine_error(error, elsewhere) or user_code_error(error)


def machine_error(error: BaseException, elsewhere: str = OUTPUT_ROOT) -> MachineError | None:
    """What the machine could not do, in a sentence; None when it is no such error."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        text = error.strerror or type(error).__name__
        if not error.filename:  # a pipe or a screen: no other folder helps
            return MachineError(f"{text}: {REMEDIES[error.errno].format(elsewhere='')}.")
        disk = f" on the disk at {mount_of(error.filename)}" if error.errno in FULL else ""
        place = f"{disk} or {elsewhere}" if elsewhere else disk
        remedy = REMEDIES[error.errno].format(elsewhere=place)
        return MachineError(f"{text} ({_shown(error.filename)}): {remedy}.")
    if is_out_of_memory(error):
        return MachineError(
            "The memory is used up: try a smaller batch_size or schedule.eval_batch_size, or "
            "dataset.resident=false."
        )
    return None


def mount_of(path: str | bytes | os.PathLike[str]) -> str:
    """Where the disk of a path is mounted."""
    place = os.path.realpath(os.fsdecode(path))
    while place != os.path.dirname(place) and not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


def _shown(path: str | bytes | int) -> str:
    text = str(path) if isinstance(path, int) else os.fsdecode(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, on a GPU or in torch on the processor."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def closest(word: str, options: Iterable[str]) -> str | None:
    """The option most similar to `word`, or None when nothing is similar."""
    matches = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """' Did you mean X?' for the closest option; an empty text when nothing is close."""
    match = closest(word, options)
    return f" Did you mean '{match}'?" if match else ""
