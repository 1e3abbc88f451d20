"""A command that was not typed but read from the folder of a sweep, perhaps a stranger's.

What this user started on this machine is remembered and goes on as it was typed. Of another
command, Hydra's own settings (which can name code, programs and files) and a folder of configs are
refused, and its targets are held to what a stranger's may call.
"""

import contextlib
from collections.abc import Iterator, Sequence

from kdrun.cli import grammar
from kdrun.cli.flags import split
from kdrun.cli.grammar import shell_quoted
from kdrun.cli.request import is_hydra
from kdrun.config import trust
from kdrun.errors import ConfigError
from kdrun.files import canonical_hash

# Settings of Hydra's that choose nothing but how many jobs run at once.
HARMLESS = ("hydra.launcher.n_jobs",)
LAUNCHERS = ("basic", "joblib")


def remember(verb: str, words: Sequence[str]) -> None:
    """The user typed this command for a sweep."""
    trust.remember([_line(verb, words)])


@contextlib.contextmanager
def words(verb: str, typed: Sequence[str], source: str) -> Iterator[None]:
    """Run the block with the words that were read from `source`.

    Raises ConfigError for a stranger's that could run code.
    """
    if trust.is_remembered(_line(verb, typed)):
        yield
        return
    flags = split(verb, list(typed))
    refused = next((word for word in flags.overrides if _reaches_hydra(word)), None)
    if flags.config_dir is not None:
        refused = "--config-dir"
    if refused is not None:
        whole = " ".join(shell_quoted(word) for word in ("kdrun", verb, *typed))
        raise ConfigError(
            f"{source} was not started by you on this machine, and {refused} in its command could "
            f"run any code. If you trust it, type the command yourself: {whole}"
        )
    with trust.words_of(source):
        yield


def _line(verb: str, words: Sequence[str]) -> str:
    return f"command {canonical_hash([verb, *words])}"


def _reaches_hydra(word: str) -> bool:
    override = grammar.parse([word])[0]
    if not is_hydra(override):
        return False
    if override.key_or_group == "hydra/launcher" and override.package is None:
        return str(override.value()) not in LAUNCHERS
    plain = override.key_or_group in HARMLESS and override.package is None
    return not (plain and isinstance(override.value(), int))
