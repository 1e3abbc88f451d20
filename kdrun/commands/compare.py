"""`kdrun compare`: what differs between two runs."""

from pathlib import Path

from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, ConfigError

ORDER = 100
SUMMARY = "show what differs between two runs"

USAGE = "kdrun compare A B [--all]"
ABOUT = "Lists the differences between two run folders: settings, environment and results."
EXAMPLES = (
    ("kdrun compare outputs/distill/digits/.../A outputs/distill/digits/.../B", ""),
    ("kdrun compare A B --all", "also what is the same"),
)
FLAGS = {"--all": "also list what is the same in both"}


def run(argv: list[str]) -> int:
    """Compare the two runs that `argv` names."""
    args = parse("compare", argv)
    if len(args.words) != 2:
        raise ConfigError(
            "compare takes two run folders: kdrun compare A B (kdrun ls runs lists them; kdrun "
            "report takes any number)."
        )
    from kdrun.report.compare import compare, one_run
    from kdrun.ui.report import show_comparison

    runs = [one_run(Path(word.removeprefix("run=")).expanduser()) for word in args.words]
    show_comparison(compare(*runs), everything=bool(args.given.get("all")))
    return EXIT_DONE
