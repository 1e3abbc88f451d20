"""The arguments of the verbs: an argparse sub-parser for each, derived from its module.

A verb declares its options as the literal `FLAGS` of its module: how an option is typed → what it
does. `--json` is a switch, `--dir DIR` takes a value, `--dry-run[=time]` may take one of the values
named, `-m, --multirun` has a short form. Everything that is no option stays a word, in order:
overrides (`T=4`, `+x=1`, `~x`), folders, names.
"""

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kdrun.cli import verbs
from kdrun.config.plain import holds_interpolation
from kdrun.errors import ConfigError, closest, did_you_mean

EVERY_VERB = {
    "-h, --help": "show this page",
    "--config-dir DIR": "add the options in your own folder, e.g. DIR/student/mine.yaml",
    "--trust MODULE": "let a run or card from elsewhere call this module's code",
}
# Options of the verbs that have a configuration.
COMPOSED = {
    "-m, --multirun": "a sweep: one run for each combination of comma-separated values",
    "--cfg job|hydra|all": "print the configuration instead of running",
    "--resolve": "with --cfg: replace ${...} by the values",
    "-p, --package NODE": "with --cfg: print this part only, e.g. -p loss",
    "--info[=all|config|defaults|defaults-tree|plugins|searchpath]": "print where each part of the "
    "configuration comes from",
    "--hydra-help": "what else Hydra accepts",
}
# Of the verbs that train.
DRY_RUN = {
    "--dry-run[=time]": "list jobs, teachers, disk use and what is already done; run nothing; "
    "=time: also estimate the time from a few timed steps",
}
HIDDEN = {"-r, --run": "no sweep (the default)"}
# Short forms that argparse takes besides those shown.
ALIASES = {"--config-dir": "-cd", "--cfg": "-c", "--info": "-i"}
VALUES = {"DIR": "a folder", "MODULE": "the name of a module"}
SHARDS = ("dataset.root", "dataset.train", "dataset.val", "dataset.test")
_SPEC = re.compile(r"(?:(-\w), )?(--[\w-]+)(?:\[=(?P<maybe>.+)\]| (?P<value>.+))?")


@dataclass(frozen=True)
class Option:
    """One option as declared. choices: empty where any value goes."""

    name: str
    short: str | None
    metavar: str | None
    optional: bool
    choices: tuple[str, ...]
    help: str

    @property
    def key(self) -> str:
        """Its name without dashes."""
        return self.name.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Arguments:
    """What follows a verb.

    words: everything that is no option. given: option → its value, True for a switch.
    output_root: `outputs` unless `output_root=DIR` was given.
    """

    words: list[str]
    given: Mapping[str, Any]
    config_dir: Path | None = None
    output_root: Path = Path("outputs")


@dataclass(frozen=True)
class Flags:
    """The options of a verb with a configuration, and everything else as overrides."""

    overrides: list[str] = field(default_factory=list)
    multirun: bool = False
    hydra_help: bool = False
    cfg: str | None = None
    resolve: bool = False
    package: str | None = None
    info: str | None = None
    config_dir: Path | None = None
    dry_run: str | None = None

    @property
    def only_shows(self) -> bool:
        """Whether the configuration is printed instead of running."""
        return self.cfg is not None or self.info is not None

    def to_argv(self) -> list[str]:
        """The same command for Hydra's own parser."""
        argv = ["--hydra-help"] if self.hydra_help else []
        argv += ["--multirun"] if self.multirun else []
        argv += ["--resolve"] if self.resolve else []
        for flag, value in (("cfg", self.cfg), ("package", self.package), ("info", self.info)):
            argv += [f"--{flag}", value] if value is not None else []
        argv += ["--config-dir", str(self.config_dir)] if self.config_dir is not None else []
        return [*argv, *self.overrides]


def declared(verb: str) -> dict[str, str]:
    """All options of a verb as they are typed → what they do, its own first."""
    flags = dict(verbs.constants(verb).get("FLAGS", {}))
    if verb in verbs.config_names():
        flags |= COMPOSED
    if verbs.constants(verb).get("TRAINS"):
        flags |= DRY_RUN
    return flags | EVERY_VERB


def option_names(verb: str) -> list[str]:
    """The long names of a verb's options."""
    return [option.name for option in known_options(verb)]


def own_option_names(verb: str) -> list[str]:
    """Those that not every verb has."""
    every = {option.name for option in (_option(*item) for item in EVERY_VERB.items())}
    return sorted(name for name in option_names(verb) if name not in every)


@cache
def known_options(verb: str) -> tuple[Option, ...]:
    """The options of a verb."""
    return tuple(_option(typed, text) for typed, text in declared(verb).items())


def _option(typed: str, text: str) -> Option:
    match = _SPEC.fullmatch(typed)
    assert match is not None, typed
    short, name = match.group(1), match.group(2)
    metavar = match["maybe"] or match["value"]
    listed = metavar is not None and (match["maybe"] is not None or "|" in metavar)
    choices = tuple(metavar.split("|")) if metavar and listed else ()
    return Option(name, short, metavar, match["maybe"] is not None, choices, text)


def parse(verb: str, argv: list[str]) -> Arguments:
    """The arguments of a verb without a configuration. Raises ConfigError for unknown options."""
    given, words = _parsed(verb, argv)
    output_root = Path("outputs")
    plain = []
    for word in words:
        name, _, value = word.partition("=")
        if name == "output_root" and value:
            output_root = Path(value).expanduser()
        else:
            plain.append(word)
    folder = _config_dir(given.pop("config_dir", None))
    return Arguments(plain, given, folder, output_root)


def parse_composed(verb: str, argv: list[str]) -> Flags:
    """The arguments of a verb with a configuration. Raises ConfigError for unknown options."""
    given, words = _parsed(verb, argv)
    folder = _config_dir(given.pop("config_dir", None))
    if holds_interpolation(os.getcwd()):
        raise ConfigError(
            f"The current folder, {os.getcwd()}, has ${{ in its name, which Hydra would resolve: "
            "rename it, or type the command in another one."
        )
    if folder is not None:
        folder = folder.resolve()
        if holds_interpolation(str(folder)):
            raise ConfigError(f"--config-dir {folder}: Hydra would resolve ${{...}}: rename it.")
    if given.get("dry_run") is not None and (given.get("cfg") or given.get("info")):
        raise ConfigError("--dry-run lists what would run, --cfg and --info print the "
                          "configuration: leave out one of them.")  # fmt: skip
    overrides = [_with_quoted_braces(word) for word in words]
    return Flags(overrides=overrides, config_dir=folder, **given)


@cache
def _parser() -> argparse.ArgumentParser:
    """`kdrun` with a sub-parser for each verb."""
    parser = argparse.ArgumentParser(prog="kdrun", add_help=False, exit_on_error=False)
    verb_parsers = parser.add_subparsers(dest="verb", required=True)
    for verb in verbs.names():
        sub = verb_parsers.add_parser(
            verb,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            argument_default=argparse.SUPPRESS,
        )
        hidden = HIDDEN if verb in verbs.config_names() else {}
        for option in (*known_options(verb), *(_option(*item) for item in hidden.items())):
            _add(sub, option)
    return parser


def forget() -> None:
    """Read the verbs again, for a program that adds one."""
    verbs.forget()
    _parser.cache_clear()
    known_options.cache_clear()


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    names = [name for name in (option.short, ALIASES.get(option.name), option.name) if name]
    if option.metavar is None:
        parser.add_argument(*names, dest=option.key, action="store_true")
    else:
        parser.add_argument(*names, dest=option.key)


def _parsed(verb: str, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(the options that were given, the other words)."""
    words = _with_values(verb, argv)
    try:
        namespace, rest = _parser().parse_known_args([verb, *words])
    except argparse.ArgumentError as error:
        raise ConfigError(_bad_value(verb, error)) from None
    without_effect = ("verb", "help", "run")  # --help is answered before a verb runs
    given = {key: value for key, value in vars(namespace).items() if key not in without_effect}
    for word in rest:
        if word.startswith("-"):
            raise ConfigError(_unknown(verb, word, rest))
    for option in known_options(verb):
        value = given.get(option.key)
        if option.choices and value is not None and value not in (*option.choices, ""):
            raise ConfigError(
                f"{option.name} {value} is not one of {', '.join(option.choices)}."
                f"{did_you_mean(str(value), option.choices)}"
            )
    return given, rest


def _with_values(verb: str, argv: list[str]) -> list[str]:
    """Options whose value may be left out get an empty one: argparse would take the next word."""
    words: list[str] = []
    optional = {name: option for option in known_options(verb) if option.optional
                for name in (option.name, ALIASES.get(option.name))}  # fmt: skip
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        option = optional.get(word)
        if option is None:
            words.append(word)
            continue
        value = rest.pop(0) if rest and rest[0] in option.choices else ""
        if option.name == "--info":
            value = value or "all"
        words.append(f"{option.name}={value}")
    return words


def _bad_value(verb: str, error: argparse.ArgumentError) -> str:
    """The sentence for an option without its value, or a switch with one."""
    names = (error.argument_name or "").split("/")
    option = next((one for one in known_options(verb) if one.name in names), None)
    if option is None or option.metavar is None:
        return f"{names[-1]} takes no value."
    needed = VALUES.get(option.metavar, "a value")
    return f"{option.name} needs {needed}: {option.name} {option.metavar}."


def _config_dir(typed: str | None) -> Path | None:
    if typed is None:
        return None
    folder = Path(typed).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder}: there is no such folder.")
    return folder


def config_dir_of(argv: list[str]) -> Path | None:
    """The folder that a command names with --config-dir, where it is one; for help pages."""
    for position, word in enumerate(argv):
        name, _, value = word.partition("=")
        if name in ("--config-dir", ALIASES["--config-dir"]):
            folder = Path(value or "".join(argv[position + 1 : position + 2])).expanduser()
            return folder if str(folder) != "." and folder.is_dir() else None
    return None


def _with_quoted_braces(word: str) -> str:
    """`dataset.root=a-{0..9}.tar` with its value in quotes: Hydra would look for a mapping."""
    key, _, value = word.partition("=")
    if key.lstrip("+") not in SHARDS or "{" not in value or value.startswith(("[", "'", '"')):
        return word
    from kdrun.cli import grammar  # loads Hydra

    return word if grammar.readable(word) else grammar.with_quoted_value(word)


def _unknown(verb: str, word: str, rest: list[str]) -> str:
    """The sentence for an option that the verb does not have."""
    name, _, value = word.partition("=")
    if name in ("--config-name", "-cn", "--config-path", "-cp", "--experimental-rerun"):
        return (
            f"{name} is not used here: the verb decides which configuration is read. "
            "Add your own options with --config-dir DIR."
        )
    if name in ("--shell-completion", "-sc"):
        return "kdrun has its own tab completion: kdrun completion bash (or zsh, fish)."
    known = option_names(verb)
    close = closest(name, known, cutoff=0.75)
    if close:
        return f"kdrun {verb} has no option {name}. Did you mean '{close}'?"
    owners = [other for other in verbs.names() if name in option_names(other)]
    if owners:
        listed = ", ".join(owners)
        return f"kdrun {verb} has no option {name}; these verbs have it: {listed}."
    if verb not in verbs.config_names():
        return f"kdrun {verb} has no option {name}. See kdrun {verb} --help."
    bare = name.lstrip("-").replace("-", "_")
    if not value:
        after = rest[rest.index(word) + 1 :]
        value = after[0] if after and not after[0].startswith("-") else "..."
    example = f"{bare}={value}"
    return f"kdrun {verb} has no option {name}: settings are typed without dashes, e.g. {example}."
