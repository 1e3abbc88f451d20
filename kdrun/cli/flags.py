"""Splitting what follows a verb into Hydra's flags and the overrides."""

import argparse
import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from kdrun.config.plain import holds_interpolation
from kdrun.errors import ConfigError

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHARDS = ("dataset.root", "dataset.train", "dataset.val", "dataset.test")
SHOWN = ("--help", "--multirun", "--config-dir", "--cfg", "--resolve", "--package", "--info")


@dataclass(frozen=True)
class Flags:
    """The parsed flags of a Hydra verb, and everything else as overrides."""

    overrides: list[str] = field(default_factory=list)
    multirun: bool = False
    help: bool = False
    hydra_help: bool = False
    cfg: str | None = None
    resolve: bool = False
    package: str | None = None
    info: str | None = None
    config_dir: Path | None = None

    @property
    def only_shows(self) -> bool:
        """Whether nothing is run: the configuration is printed."""
        return self.cfg is not None or self.info is not None

    @property
    def hydra_only(self) -> bool:
        """Whether this is between the user and Hydra alone."""
        return self.hydra_help

    def to_argv(self) -> list[str]:
        """The same command for Hydra's own parser."""
        argv = ["--hydra-help"] if self.hydra_help else []
        argv += ["--multirun"] if self.multirun else []
        argv += ["--resolve"] if self.resolve else []
        for flag, value in (("cfg", self.cfg), ("package", self.package), ("info", self.info)):
            argv += [f"--{flag}", value] if value is not None else []
        argv += ["--config-dir", str(self.config_dir)] if self.config_dir is not None else []
        return [*argv, *self.overrides]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].upper()}{message[1:]}.")


def split(verb: str, argv: list[str]) -> Flags:
    """Parse what the user typed after the verb. Raises ConfigError for unknown flags."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=INFO)
    values, rest = parser.parse_known_args(_with_info_value(argv))
    for word in rest:
        if word.startswith("-"):
            raise ConfigError(_unknown_flag(word, rest))
    if holds_interpolation(os.getcwd()):
        raise ConfigError(
            f"The current folder, {os.getcwd()}, has ${{ in its name, which Hydra would resolve: "
            "rename it, or type the command in another one."
        )
    folder = values.config_dir
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: there is no such folder.")
        folder = folder.resolve()
        if holds_interpolation(str(folder)):
            raise ConfigError(f"--config-dir {folder}: Hydra would resolve ${{...}}: rename it.")
    return Flags(
        overrides=[_with_quoted_braces(word) for word in rest],
        multirun=values.multirun,
        help=values.help,
        hydra_help=values.hydra_help,
        cfg=values.cfg,
        resolve=values.resolve,
        package=values.package,
        info=values.info,
        config_dir=folder,
    )


def _with_quoted_braces(word: str) -> str:
    """`dataset.root=a-{0..9}.tar` with its value in quotes: Hydra would look for a mapping."""
    key, _, value = word.partition("=")
    if key.lstrip("+") not in SHARDS or "{" not in value or value.startswith(("[", "'", '"')):
        return word
    from kdrun.cli import grammar  # loads Hydra

    return word if grammar.readable(word) else grammar.with_quoted_value(word)


def _with_info_value(argv: list[str]) -> list[str]:
    """`--info student=x` means `--info all student=x`; argparse would take the override."""
    words: list[str] = []
    for position, word in enumerate(argv):
        words.append(word)
        following = argv[position + 1] if position + 1 < len(argv) else "-"
        if word in ("--info", "-i") and "=" in following:
            words.append("all")
    return words


def _unknown_flag(word: str, rest: list[str]) -> str:
    name, _, value = word.partition("=")
    if name in ("--config-name", "-cn", "--config-path", "-cp", "--experimental-rerun"):
        return (
            f"{name} is not used here: the verb decides which configuration is read. "
            "Add your own options with --config-dir DIR."
        )
    if name in ("--shell-completion", "-sc"):
        return "kdrun has its own tab completion: kdrun completion bash (or zsh, fish)."
    close = difflib.get_close_matches(name, SHOWN, n=1, cutoff=0.75)
    if close:
        return f"There is no flag {name}. Did you mean '{close[0]}'?"
    bare = name.lstrip("-").replace("-", "_")
    if not value:
        after = rest[rest.index(word) + 1 :]
        value = after[0] if after and not after[0].startswith("-") else "..."
    return f"There is no flag {name}: settings are typed without dashes, e.g. {bare}={value}."
