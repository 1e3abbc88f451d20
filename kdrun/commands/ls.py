"""`kdrun ls`: list config groups, the options of a group, runs or teachers."""

from pathlib import Path

from kdrun.cli import config_groups
from kdrun.cli.columns import columns, wrapped_columns
from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, ConfigError, did_you_mean

ORDER = 110
SUMMARY = "list the options of a group, the runs or the teachers"

USAGE = "kdrun ls [GROUP | GROUP/FOLDER | runs | teachers] [NAME=VALUE]..."
ABOUT = "Lists the groups, the options of a group, the runs or the teacher store."
EXAMPLES = (
    ("kdrun ls", "the groups"),
    ("kdrun ls loss", "the losses, with a line on each"),
    ("kdrun ls runs", "the newest runs"),
    ("kdrun ls runs dataset=digits loss=sp --sort=gain", "some runs, highest gain first"),
    ("kdrun ls teachers", "the teacher store"),
    ("kdrun ls student --config-dir my", "your own options as well"),
    ("kdrun ls runs output_root=elsewhere", "the runs in another folder"),
)
FLAGS = {
    "--all": "all runs, not only the newest",
    "--sort KEY": "sort runs by when, gain, test, val, agreement, seconds or another metric",
}
NEWEST = 20
RUNS = ("run", "runs")
STORE = ("teachers", "store")
SINGULAR = {"losses": "loss"}


def run(argv: list[str]) -> int:
    """Print the listing that `argv` asks for."""
    args = parse("ls", argv)
    names = [word for word in args.words if "=" not in word]
    filters = dict(word.split("=", 1) for word in args.words if "=" in word)
    if len(names) > 1:
        raise ConfigError(f"ls lists one thing at a time: kdrun ls {names[0]}.")
    what = names[0] if names else None
    sort = args.given.get("sort")
    if (filters or sort) and what not in RUNS:
        raise ConfigError(
            "Filters and --sort are for runs: kdrun ls runs dataset=digits loss=sp --sort gain."
        )
    if what is None:
        say(overview(args.config_dir))
    elif what in (*RUNS, *STORE):
        from kdrun.cli import run_listing  # imports what reads runs: 0.1 s

        if what in STORE:
            say(run_listing.list_teachers(args.output_root))
        else:
            limit = None if args.given.get("all") else NEWEST
            order = sort or run_listing.WHEN
            say(run_listing.list_runs(args.output_root, limit, filters, order))
    else:
        say(options(what, args.config_dir))
    return EXIT_DONE


def overview(config_dir: Path | None) -> str:
    """All groups with their number of options and the first few names."""
    rows = []
    for group, names in config_groups.list_groups(config_dir).items():
        if group in config_groups.INTERNAL:
            continue
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        rows.append((group, str(len(names)), shown))
    table = columns([("group", "options", ""), *rows])
    return f"{table}\n\nkdrun ls GROUP says what each option is; kdrun show GROUP/NAME prints it."


def options(group: str, config_dir: Path | None) -> str:
    """The options of a group, or of a folder in it, each with a description."""
    known = config_groups.list_groups(config_dir)
    name, folder = group.rstrip("/"), ""
    if name not in known:
        above, below = config_groups.split_name(name, known)
        if any(option.startswith(f"{below}/") for option in known.get(above, [])):
            name, folder = above, f"{below}/"
    if name not in known:
        name = SINGULAR.get(name, name.removesuffix("s"))
    if name not in known:
        hint = did_you_mean(group, [*known, "runs", "teachers"])
        names = ", ".join(g for g in known if g not in config_groups.INTERNAL)
        raise ConfigError(f"There is no group '{group}'.{hint or f' There are {names}.'}")
    rows = []
    for option in known[name]:
        if not option.startswith(folder):
            continue
        path = config_groups.option_path(name, option, config_dir)
        rows.append((option, config_groups.first_comment(path) if path is not None else ""))
    return wrapped_columns(rows)
