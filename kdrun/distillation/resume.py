"""Continue an interrupted run in its own folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdrun.checksums import find_fault
from kdrun.config import parse, places, rules
from kdrun.distillation.metrics import show_result
from kdrun.distillation.next_command import typed_command
from kdrun.distillation.run import run_distill
from kdrun.distillation.session import Session, open_session
from kdrun.distillation.teacher_run import run_train_teacher
from kdrun.errors import ConfigError
from kdrun.runs.config import parsed, read_config
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import DESCRIPTION, WEIGHTS, read_run
from kdrun.runs.result import COMPLETED

Result = dict[str, Any]
# Verb → how its config.yaml is read, how the settings are checked, what runs them.
RESUMED: dict[str, tuple[Callable[..., Any], Callable[..., None], Callable[..., Result]]] = {
    "train-teacher": (parse.train_teacher_config, rules.train_teacher, run_train_teacher),
    "distill": (parse.distill_config, rules.distill, run_distill),
}


def resume_run(path: Path) -> Result:
    """Continue the run of a folder; returns its result. A finished run is only shown.

    If the result, history or student is damaged, it continues from its last checkpoint.
    Raises ConfigError for folders without a run that can be resumed.
    """
    fault = find_fault(path, DESCRIPTION)
    if fault:
        raise ConfigError(fault)
    result = read_run(path, WEIGHTS).values or None
    verb = read_config(path, _verb_of) if result is None else result["command"]
    # of the runs that it starts, too: a baseline's command is made of that of its run
    argv = typed_command(path) or ["resume", str(path)]
    if verb not in RESUMED:
        raise ConfigError(f"{path} is a run of 'kdrun {verb}': just type it again.")
    read, check, run = RESUMED[verb]
    config = read_config(path, read)
    check(config)
    config, notes = places.resumed(config, path, verb)
    with open_session(config.runtime) as session:
        for note in notes:
            session.reporter.say(f"note: {note}")
        if result is not None and result["status"] == COMPLETED:
            return _show_complete(session, path, result)
        return run(config, RunFolder(path), session, argv)


def _verb_of(cfg: Mapping[str, Any]) -> str:
    """The verb that a stored configuration belongs to."""
    return "distill" if "student" in cfg else "evaluate" if "run" in cfg else "train-teacher"


def _show_complete(session: Session, path: Path, result: Result) -> Result:
    RunFolder(path).tidy()
    session.reporter.say(f"{path} is complete: nothing to resume.")
    if result["command"] == "distill":
        parsed(
            lambda values: show_result(path, values, session.reporter),
            result,
            f"{path}/result.json",
        )
    return result
