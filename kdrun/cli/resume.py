"""`kdrun resume`: going on with a run, or with the jobs of a sweep."""

from pathlib import Path

from kdrun.cli.output import say
from kdrun.errors import EXIT_DONE, ConfigError
from kdrun.files import read_json
from kdrun.runs.sweeps import SWEEP_FILE, SweepFolder


def run(argv: list[str]) -> int:
    """Go on with the run or the sweep whose folder `argv` names."""
    if argv[:1] in (["--help"], ["-h"]):
        from kdrun.cli import pages

        say(pages.RESUME)
        return EXIT_DONE
    if len(argv) != 1:
        raise ConfigError(
            "resume takes one run or sweep folder: kdrun resume outputs/... "
            "(kdrun ls runs lists them)."
        )
    path = Path(argv[0].removeprefix("run="))
    if not path.is_dir():
        raise ConfigError(f"There is no folder {path}. kdrun ls runs lists the runs there are.")
    if (path / SWEEP_FILE).is_file():
        return _sweep(path)
    from kdrun.stages import commands

    commands.resume(path)
    return EXIT_DONE


def _sweep(path: Path) -> int:
    """The sweep's own command again, into its folder; jobs that are done are skipped."""
    from kdrun.cli import app, foreign
    from kdrun.cli.groups import CONFIG_NAMES

    try:
        verb, *words = [str(word) for word in read_json(path / SWEEP_FILE)["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        verb, words = "", []
    if verb not in CONFIG_NAMES:
        raise ConfigError(
            f"{path / SWEEP_FILE} cannot be read: type the sweep's command again instead."
        )
    SweepFolder(path).require_plain()
    with foreign.words(verb, words, str(path / SWEEP_FILE)):
        fault = SweepFolder(path).fault()
        if fault:
            raise ConfigError(fault)
        if verb == "search":
            from kdrun.cli import search

            return search.run(words, search_dir=path)
        return app.run_verb(verb, words, sweep_dir=path)
