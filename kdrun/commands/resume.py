"""`kdrun resume`: resume an interrupted run, or the jobs of a sweep."""

from pathlib import Path

from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, ConfigError
from kdrun.files import read_json
from kdrun.runs.reading import is_run_folder, read_run
from kdrun.runs.result import COMPLETED, RESUMABLE
from kdrun.runs.sweeps import SWEEP_FILE, SweepFolder

ORDER = 80
SUMMARY = "resume an interrupted run or sweep"

USAGE = "kdrun resume RUN | SWEEP [--dry-run]"
ABOUT = "Resumes an interrupted run or sweep from its last checkpoint."
EXAMPLES = (
    ("kdrun ls runs", "the runs, newest first"),
    ("kdrun resume outputs/distill/...", "a run"),
    ("kdrun resume outputs/sweeps/...", "a sweep: finished jobs are skipped"),
    ("kdrun resume outputs/sweeps/... --dry-run", "what is left of a sweep"),
    ("kdrun resume theirs --trust my_nets", "someone else's run, whose code is in my_nets"),
)
TRAINS = True


def run(argv: list[str]) -> int:
    """Resume the run or the sweep whose folder `argv` names."""
    args = parse("resume", argv)
    if len(args.words) != 1:
        raise ConfigError(
            "resume takes one run or sweep folder: kdrun resume outputs/... "
            "(kdrun ls runs lists them)."
        )
    path = Path(args.words[0].removeprefix("run=")).expanduser()
    if not path.is_dir():
        raise ConfigError(f"There is no folder {path}. kdrun ls runs lists the runs there are.")
    if (path / SWEEP_FILE).is_file():
        return _sweep(path, args.given.get("dry_run"))
    if args.given.get("dry_run") is not None:
        say(_rest_of_run(path))
        return EXIT_DONE
    from kdrun.distillation.resume import resume_run

    resume_run(path)
    return EXIT_DONE


def _rest_of_run(path: Path) -> str:
    """Dry run of resuming a run."""
    result = read_run(path).result
    if not is_run_folder(path) or result.command not in RESUMABLE:
        raise ConfigError(f"{path} is no run that can be resumed. kdrun ls runs lists the runs.")
    if result.status == COMPLETED:
        return f"dry run: {path} is complete: nothing to resume"
    metrics, state = path / "metrics.jsonl", path / "checkpoints"
    done = metrics.read_text(errors="replace").count("\n") if metrics.is_file() else 0
    start = "its last checkpoint" if state.is_dir() and any(state.iterdir()) else "the beginning"
    return (
        f"dry run: {path} ({result.command}, {result.status}) would resume from {start}; "
        f"{done} of {result.epochs} epochs are done"
    )


def _sweep(path: Path, dry_run: str | None = None) -> int:
    """The sweep's own command again, into its folder; jobs that are done are skipped."""
    from kdrun.cli import execution, untrusted
    from kdrun.cli.verbs import config_names

    try:
        verb, *words = [str(word) for word in read_json(path / SWEEP_FILE)["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        verb, words = "", []
    if verb not in config_names():
        raise ConfigError(
            f"{path / SWEEP_FILE} cannot be read: type the sweep's command again instead."
        )
    SweepFolder(path).require_plain()
    with untrusted.command(verb, words, str(path / SWEEP_FILE)):
        fault = SweepFolder(path).fault()
        if fault:
            raise ConfigError(fault)
        option = [] if dry_run is None else [f"--dry-run={dry_run}"]
        if verb == "search":
            from kdrun.commands import search

            return search.run([*words, *option], search_dir=path)
        return execution.run_verb(verb, [*words, *option], sweep_dir=path)
