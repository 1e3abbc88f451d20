"""The command line: `kdrun VERB ...` finds the verb, runs it and turns errors into exit codes."""

import importlib
import os
import signal
import sys
from types import FrameType, ModuleType
from typing import NoReturn

from kdrun import __version__
from kdrun.cli import parser, verbs
from kdrun.cli.output import flush, is_writable, lost, prepare_streams, say, slow_start
from kdrun.config import trust
from kdrun.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    OUTPUT_ROOT,
    ConfigError,
    Interrupted,
    KdrunError,
    did_you_mean,
    known_error,
)
from kdrun.world import world

# Advice on a disk error, for verbs that write elsewhere than below output_root.
ELSEWHERE = {
    "report": "name another folder: to=DIR",
    "export": "name another folder: out=DIR",
    "new": "name another folder: --dir DIR",
    **dict.fromkeys(("compare", "ls", "show", "predict", "doctor", "completion"), ""),
}


# A command that may be a sweep has a word with one of these beginnings.
SWEEP_WORDS = ("-m", "--multirun", "sweep=", "experiment=")


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command in `argv` (default: the process's own) and exit with its code."""
    stop_on_signals()
    try:
        prepare_streams()
        code = run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # another one, while the first was handled
        code = EXIT_INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command has ended: the rest is Python's exit
    if world().size > 1 and code != EXIT_FAILED:
        from kdrun.engine import distributed

        distributed.shutdown()
    sys.exit(code)


def stop_on_signals() -> None:
    """Make SIGTERM and a closed terminal stop the command like Ctrl-C, outside a run too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def run(argv: list[str]) -> int:
    """Run the command in `argv` and return its exit code; errors go to standard error."""
    # Read when torch loads OpenMP. By default its threads spin while they wait for one another, and
    # with anything else on the machine a small network becomes many times slower; never spinning
    # costs such a network a third of its speed when the machine is quiet.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        words, modules = _without_trust(argv)
        with trust.trusting(modules):
            code = _dispatch(words)
        flush()
        return code
    except KdrunError as error:
        _console().error(str(error))
        return error.exit_code
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", []):
            _console().interrupted(note)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`kdrun ls | head`); Python's own flush at exit must find no pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and not is_writable():
            _console().error(str(lost(error)))
            return EXIT_FAILED
        known = known_error(error, ELSEWHERE.get(argv[0] if argv else "", OUTPUT_ROOT))
        if known is None:
            _console().bug(error)
            return EXIT_FAILED
        _console().error(str(known))
        return known.exit_code


def _console() -> ModuleType:
    from kdrun.ui import console  # imports rich

    return console


def _without_trust(argv: list[str]) -> tuple[list[str], list[str]]:
    """(the words without every `--trust MODULE`, the modules): valid for every verb."""
    words: list[str] = []
    modules: list[str] = []
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name != "--trust":
            words.append(word)
            continue
        value = value if equals else next(rest, "")
        if not value or value.startswith("-"):
            raise ConfigError("--trust needs the name of a module: --trust my_nets.")
        modules.append(value)
    return words, modules


def _dispatch(argv: list[str]) -> int:
    if "COMP_LINE" in os.environ and argv[:1] == ["--complete"]:
        from kdrun.commands import completion

        return completion.complete(verbs.names())
    if not argv or argv[0] in ("--help", "-h", "help"):
        return _help(argv[1:])
    if argv[0] in ("--version", "-V", "version"):
        say(f"kdrun {__version__}")
        return EXIT_DONE
    if argv[0] not in verbs.names():
        raise ConfigError(_unknown_verb(argv))
    _require_folder()
    return _run_verb(argv[0], argv[1:])


def _run_verb(verb: str, argv: list[str]) -> int:
    if "--help" in argv or "-h" in argv:
        from kdrun.cli import help

        say(help.page(verb, parser.config_dir_of(argv)))
        return EXIT_DONE
    if verb in verbs.config_names() and any(word.startswith(SWEEP_WORDS) for word in argv):
        with slow_start("sweep: reading the configuration"):
            importlib.import_module("kdrun.cli.planning")  # Hydra: seconds on a busy machine
    code: int = verbs.module(verb).run(argv)
    return code


def _require_folder() -> None:
    """Raise ConfigError when the current folder was deleted: no relative path means anything."""
    try:
        os.getcwd()
    except OSError:
        raise ConfigError(
            "The current folder does not exist any more: change to another one (cd ...), then type "
            "the command again."
        ) from None


def _help(words: list[str]) -> int:
    from kdrun.cli import help

    if words and words[0] in verbs.names():
        return _run_verb(words[0], ["--help"])
    if words:
        raise ConfigError(_unknown_verb(words))
    say(help.front())
    return EXIT_DONE


def _unknown_verb(argv: list[str]) -> str:
    word, names = argv[0], ", ".join(verbs.names())
    if word.startswith("-") and word not in ("-m", "--multirun"):
        return f"kdrun has no option {word}. Put a verb first: {names}."
    if "=" in word or word in ("-m", "--multirun"):
        rest = " ".join(argv)
        return f"A verb is missing: put distill (or another verb) first: kdrun distill {rest}"
    underscored = word.replace("_", "-")
    hint = did_you_mean(underscored, verbs.names()) or f" The verbs are {names}."
    return f"kdrun has no verb '{word}'.{hint}"
