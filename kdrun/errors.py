"""The errors a user can meet, and the exit code each ends in.

A message is one or two sentences: what is wrong, then what to type instead.
"""

import difflib
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


class DataError(KdrunError):
    """The data the user named is missing, damaged or not what the configuration says."""

    exit_code = EXIT_MISTAKE


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


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved its state."""


def closest(word: str, options: Iterable[str]) -> str | None:
    """The option most similar to `word`, or None when nothing is similar."""
    matches = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """' Did you mean X?' for the closest option; an empty text when nothing is close."""
    match = closest(word, options)
    return f" Did you mean '{match}'?" if match else ""
