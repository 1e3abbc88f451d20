"""`kdrun ls`: the groups, the options of one, the runs, the teachers."""

import time
from collections.abc import Sequence
from pathlib import Path

from kdrun.checksums import find_fault
from kdrun.cli import config_groups, run_index
from kdrun.cli.output import say
from kdrun.cli.words import split
from kdrun.errors import EXIT_DONE, ConfigError, did_you_mean
from kdrun.files import is_held, require_path
from kdrun.report.metrics_table import TEST
from kdrun.report.records import Run
from kdrun.runs.reading import DAMAGED, read_run
from kdrun.runs.result import RunResult

ORDER = 110
SUMMARY = "list the options of a group, the runs or the teachers"

USAGE = """\
kdrun ls [GROUP | GROUP/FOLDER | runs | teachers]
Lists what there is to choose from, or what has been made.

Try:
  kdrun ls                               the groups
  kdrun ls loss                          the losses, with a line on each
  kdrun ls runs                          the newest runs; --all: every one
  kdrun ls teachers                      the teacher store
  kdrun ls student --config-dir my       your own options as well
  kdrun ls runs output_root=elsewhere    below another folder
"""
NEWEST = 20
SINGULAR = {"losses": "loss"}


def run(argv: list[str]) -> int:
    """Print the listing that `argv` asks for."""
    words = split("ls", argv, flags=("--all",))
    if words.help:
        say(USAGE)
        return EXIT_DONE
    if len(words.plain) > 1:
        raise ConfigError(f"ls lists one thing at a time: kdrun ls {words.plain[0]}.")
    what = words.plain[0] if words.plain else None
    limit = None if "--all" in words.flags else NEWEST
    if what is None:
        say(overview(words.config_dir))
    elif what in ("run", "runs"):
        say(list_runs(words.output_root, limit))
    elif what in ("teachers", "store"):
        say(list_teachers(words.output_root))
    else:
        say(options(what, words.config_dir))
    return EXIT_DONE


def overview(config_dir: Path | None) -> str:
    """All groups, their number of options, and the first few."""
    rows = []
    for group, names in config_groups.list_groups(config_dir).items():
        if group in config_groups.INTERNAL:
            continue
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        rows.append((group, str(len(names)), shown))
    table = columns([("group", "options", ""), *rows])
    return f"{table}\n\nkdrun ls GROUP says what each option is; kdrun show GROUP/NAME prints it."


def options(group: str, config_dir: Path | None) -> str:
    """The options of a group with a line on each; of a folder in a group those in it."""
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
    return columns(rows)


def list_runs(root: Path, limit: int | None) -> str:
    """The runs below `root`, newest first: when, status, test top-1, what, where."""
    found = run_index.find_runs(root)
    if not found:
        require_path(root / "distill")  # a disk that is not mounted is not an empty folder
        return f"There are no runs below {root}. kdrun distill makes one."
    rows = [("when", "status", TEST.title, "command", "objective", "folder")]
    faults = []
    for one in found[:limit]:
        values, status = one.values, _status(one)
        fault = read_run(one.folder).fault
        if fault:
            values, status = {}, DAMAGED
            faults.append(f"damaged: {fault}")
        result = RunResult.from_dict(values, check=False)
        rows.append(
            (
                _when(one.modified),
                status,
                TEST.with_unit(TEST.read(Run(one.folder, result, status))),
                result.command or "-",
                result.objective or "-",
                str(one.folder),
            )
        )
    hidden = len(found) - len(rows) + 1
    more = f"\n\n{hidden} older ones: kdrun ls runs --all" if hidden else ""
    return "\n".join([columns(rows) + more, *([""] if faults else []), *faults])


def _status(run: run_index.Found) -> str:
    """What its file says; `killed` where that is "running" and no process works in the folder."""
    status = str(run.values.get("status", "unreadable"))
    return "killed" if status == "running" and not is_held(run.folder / ".lock") else status


def list_teachers(root: Path) -> str:
    """The teacher store below `root`, newest first."""
    found = run_index.find_teachers(root)
    if not found:
        require_path(root / "teachers")
        return f"The teacher store {root / 'teachers'} is empty. kdrun train-teacher fills it."
    rows = [("when", TEST.title, "network", "data set", "parameters", "folder")]
    faults = []
    for one in found:
        fault = find_fault(one.folder, ["teacher.json"])
        if fault:
            faults.append(f"damaged: {fault}")
            damaged = (_when(one.modified), "-", DAMAGED, one.folder.parent.name, "-")
            rows.append((*damaged, str(one.folder)))
            continue
        params = run_index.number(one.values, "params")
        top1 = run_index.number(one.values, "extra", "test", "top1")
        rows.append(
            (
                _when(one.modified),
                TEST.with_unit(top1),
                str(one.values.get("name", "unreadable")),
                one.folder.parent.name,
                "-" if params is None else f"{int(params):,}",
                str(one.folder),
            )
        )
    return "\n".join([columns(rows), *([""] if faults else []), *faults])


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned text; the last column runs on, nothing is cut."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _when(modified: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))
