"""The arguments of the verbs that Hydra has no part in."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kdrun.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Words:
    """What was typed after the verb. output_root: `outputs` unless `output_root=DIR` was given."""

    plain: list[str]
    flags: frozenset[str]
    help: bool
    config_dir: Path | None
    output_root: Path


def split(verb: str, argv: list[str], flags: Iterable[str] = ()) -> Words:
    """Sort the words of `argv`; `flags` are those this verb knows besides the common ones.

    Raises ConfigError for an unknown flag or setting.
    """
    known = (*flags, "--help", "--config-dir")
    plain: list[str] = []
    given: set[str] = set()
    config_dir: Path | None = None
    output_root = Path("outputs")
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            if not value and not rest:
                raise ConfigError("--config-dir needs a folder: --config-dir DIR.")
            config_dir = Path(value or rest.pop(0))
            if not config_dir.is_dir():
                raise ConfigError(f"--config-dir {config_dir}: there is no such folder.")
        elif name == "output_root" and value:
            output_root = Path(value)
        elif word in ("--help", "-h"):
            given.add("--help")
        elif word.startswith("-"):
            if word not in known:
                hint = did_you_mean(word, known)
                raise ConfigError(f"{verb} has no flag {word}.{hint} See kdrun {verb} --help.")
            given.add(word)
        else:
            plain.append(word)
    return Words(plain, frozenset(given), "--help" in given, config_dir, output_root)
