"""A command that was read from a sweep's folder instead of typed, and may be untrusted.

Commands that this user started on this machine are remembered and resumed as typed. Of another
command, Hydra's own settings (which can name code, programs and files) and a folder of configs are
refused, and its targets are limited to what untrusted ones may call.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence

from kdrun.cli import grammar
from kdrun.cli.grammar import shell_quoted
from kdrun.cli.parser import parse_composed
from kdrun.config import trust
from kdrun.config.plain import holds_interpolation
from kdrun.errors import ConfigError
from kdrun.files import canonical_hash

# Settings of Hydra's that choose nothing but how many jobs run at once.
HARMLESS = ("hydra.launcher.n_jobs",)
LAUNCHERS = ("basic", "joblib")
HYDRA = "hydra"
# Where a group of kdrun's own may be placed: every other package could be Hydra's, or the root.
OWN_PACKAGE = re.compile(r"(teacher\d*|teacher\d*\.schedule)")


def remember(verb: str, words: Sequence[str]) -> None:
    """Record that the user started a sweep with this command on this machine."""
    trust.remember([_line(verb, words)])


@contextlib.contextmanager
def command(verb: str, typed: Sequence[str], source: str) -> Iterator[None]:
    """Run the block as the command `VERB typed...` that was read from the file `source`.

    Raises ConfigError for an untrusted command that could run code.
    """
    if trust.is_remembered(_line(verb, typed)):
        yield
        return
    flags = parse_composed(verb, list(typed))
    refused = next((word for word in flags.overrides if not _is_harmless(word)), None)
    if flags.config_dir is not None:
        refused = "--config-dir"
    if refused is not None:
        whole = " ".join(shell_quoted(word) for word in ("kdrun", verb, *typed))
        raise ConfigError(
            f"{source} was not started by you on this machine, and {refused} in its command could "
            "run any code or read your environment. If you trust it, type the command yourself: "
            f"{whole}"
        )
    with trust.untrusted_source(source):
        yield


def _line(verb: str, words: Sequence[str]) -> str:
    return f"command {canonical_hash([verb, *words])}"


def _is_harmless(word: str) -> bool:
    """Whether an override sets or chooses something of kdrun's own, and nothing of Hydra's."""
    if holds_interpolation(word):
        return False  # reads this machine's environment
    override = grammar.parse([word])[0]
    if override.package is not None and not OWN_PACKAGE.fullmatch(override.package):
        return False
    if HYDRA not in override.key_or_group:
        return True
    if override.is_delete() or override.package is not None:
        return False
    if override.key_or_group == "hydra/launcher":
        return str(override.value()) in LAUNCHERS
    return override.key_or_group in HARMLESS and isinstance(override.value(), int)
