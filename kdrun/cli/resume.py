"""`kdrun resume`: going on with a run, or with the jobs of a sweep."""

import json
from functools import partial
from pathlib import Path

from kdrun.cli.output import say
from kdrun.errors import EXIT_DONE, ConfigError

SWEEP_FILE = "sweep.json"


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


def _sweep(folder: Path) -> int:
    """Run the jobs that a sweep's folder lists, one after the other; those done are skipped."""
    from kdrun.cli import app, preflight
    from kdrun.cli.flags import split
    from kdrun.cli.groups import CONFIG_NAMES

    todo = []
    for number, (verb, *words) in enumerate(_commands(folder)):
        plan = preflight.check(verb, CONFIG_NAMES[verb], split(verb, words))
        todo.append((number, verb, plan.configs[0], [verb, *words]))
    from kdrun.stages import sweep

    codes = []
    try:
        for number, verb, config, argv in todo:
            job = partial(app.command(verb), config, argv, sweep_dir=folder, job=number)
            codes.append(app.job_code(number, job))
    finally:
        sweep.summarise(folder)
    return max(codes, default=EXIT_DONE)


def _commands(folder: Path) -> list[list[str]]:
    """The command of every job. Raises ConfigError when the sweep's file is damaged."""
    from kdrun.cli.groups import CONFIG_NAMES

    path = folder / SWEEP_FILE
    try:
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        found = [[str(word) for word in job["command"]] for job in jobs]
    except (OSError, ValueError, KeyError, TypeError):
        found = []
    if not found or any(words[:1] == [] or words[0] not in CONFIG_NAMES for words in found):
        raise ConfigError(f"{path} cannot be read: type the sweep's command again instead.")
    return found
