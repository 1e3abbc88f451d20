"""`kdrun compare`: what differs between two runs."""

from pathlib import Path

from kdrun.cli.output import say
from kdrun.cli.words import split
from kdrun.errors import EXIT_DONE, ConfigError

ORDER = 100
SUMMARY = "what differs between two runs"

USAGE = """\
kdrun compare A B
What differs between two runs: settings, environment and results. A and B are run folders.

Try:
  kdrun compare outputs/distill/digits/.../A outputs/distill/digits/.../B
  kdrun compare A B --all                what is the same as well
"""


def run(argv: list[str]) -> int:
    """Compare the two runs that `argv` names."""
    words = split("compare", argv, flags=("--all",))
    if words.help:
        say(USAGE)
        return EXIT_DONE
    if len(words.plain) != 2:
        raise ConfigError(
            "compare takes two run folders: kdrun compare A B (kdrun ls runs lists them; kdrun "
            "report takes any number)."
        )
    from kdrun.report.compare import compare, one_run
    from kdrun.ui.report import show_comparison

    runs = [one_run(Path(word.removeprefix("run=")).expanduser()) for word in words.plain]
    show_comparison(compare(*runs), everything="--all" in words.flags)
    return EXIT_DONE
