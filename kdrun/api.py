"""Runs from Python: the commands of kdrun as functions, with their results as objects.

They compose, check and run what the command line does, in the same folders. Mistakes are raised as
ConfigError or DataError; Ctrl-C saves the run and raises KeyboardInterrupt.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdrun.cli import execution, planning, untrusted, verbs
from kdrun.cli.parser import parse_composed
from kdrun.config import trust as trusted
from kdrun.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    ConfigError,
    Interrupted,
    KdrunError,
    known_error,
)
from kdrun.files import read_json
from kdrun.runs.result import RunResult
from kdrun.runs.sweeps import SweepFolder


def distill(
    *overrides: str,
    config_dir: str | Path | None = None,
    trust: Iterable[str] = (),
    **settings: Any,
) -> RunResult:
    """`kdrun distill`: train or find the teacher, then distil the student.

    overrides: as typed, `"dataset=digits"`, `"schedule.lr=0.1"`. settings: the same by keyword,
    `T=4`, `loss=["kd", "sp"]`; lists and None become Hydra's.
    config_dir: a folder of your own options. trust: modules whose code a run may call.
    Accuracies are percent: `result.student.test.top1`; `result.folder` is the run folder.
    Raises ConfigError, DataError and other KdrunErrors with the message of the command line.
    Ctrl-C in the main thread saves the run and raises KeyboardInterrupt: `kdrun resume FOLDER`.
    """
    return _run("distill", overrides, settings, config_dir, trust)


def train_teacher(
    *overrides: str,
    config_dir: str | Path | None = None,
    trust: Iterable[str] = (),
    **settings: Any,
) -> RunResult:
    """`kdrun train-teacher`: train a teacher or find it in the store; see `result.teachers[0]`.

    Arguments and errors as of `distill`.
    """
    return _run("train-teacher", overrides, settings, config_dir, trust)


def sweep(
    *overrides: str,
    config_dir: str | Path | None = None,
    trust: Iterable[str] = (),
    **settings: Any,
) -> list[RunResult]:
    """`kdrun distill -m`: a run for every combination of values, in job order.

    settings: a list or tuple tries its elements, `T=[1, 4]`; `loss=[["kd"], ["kd", "sp"]]`.
    Arguments otherwise as of `distill`. Jobs that are done are reused.
    Raises ConfigError for a mistake, KdrunError when a job failed; its runs are in the folder.
    """
    words = [f"{key}={_choices(value)}" for key, value in settings.items()]
    with trusted.trusting(trust), _known_errors():
        plan, typed = _plan("distill", ["-m", *overrides, *words], config_dir)
        assert plan.sweep_dir is not None
        folder = SweepFolder(plan.sweep_dir)
        untrusted.remember("distill", typed)
        code = execution.run_sweep("distill", plan, typed, folder)
    if code == EXIT_INTERRUPTED:
        raise Interrupted(f"sweep {folder.path}")
    if code != EXIT_DONE:
        raise KdrunError(f"A job of the sweep failed: see {folder.path}.")
    return [_result(Path(note["run"])) for note in folder.notes()]


def report(*folders: str | Path, to: str | Path | None = None) -> Path:
    """`kdrun report`: the folder with report.html, report.md and the CSV files.

    to: another folder for the files; None: the parent of the first of `folders`.
    Raises ConfigError for folders without runs.
    """
    from kdrun.commands import report as command

    words = [str(folder) for folder in folders] + ([] if to is None else [f"to={to}"])
    with _known_errors():
        command.run(words)
    return Path(to) if to is not None else Path(folders[0]).parent


def _run(
    verb: str,
    overrides: Iterable[str],
    settings: Mapping[str, Any],
    config_dir: str | Path | None,
    trust: Iterable[str],
) -> RunResult:
    words = [*overrides, *(f"{key}={_value(value)}" for key, value in settings.items())]
    with trusted.trusting(trust), _known_errors():
        plan, _ = _plan(verb, words, config_dir)
        if plan.sweep_dir is not None:
            raise ConfigError("These settings are a sweep: use kdrun.sweep(...).")
        return RunResult.from_dict(verbs.module(verb).execute(plan.configs[0], plan.argvs[0]))


def _plan(
    verb: str, words: list[str], config_dir: str | Path | None
) -> tuple[planning.Plan, list[str]]:
    flags = parse_composed(
        verb, words + ([] if config_dir is None else ["--config-dir", str(config_dir)])
    )
    return planning.check(verb, flags), flags.to_argv()


def _result(folder: Path) -> RunResult:
    return RunResult.from_dict({**read_json(folder / "result.json"), "folder": str(folder)})


def _value(value: Any) -> str:
    """A Python value as Hydra reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_value(element) for element in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(v)}" for key, v in value.items()) + "}"
    if isinstance(value, str | Path) and any(letter in str(value) for letter in " ,:=(){}[]'\""):
        quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return str(value)


def _choices(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_value(element) for element in value)
    return _value(value)


class _known_errors:  # noqa: N801 - used as a context manager
    """Errors of the machine and `sys.exit` in user code as the errors of kdrun.

    A run sets the number of torch's threads; the caller's number is restored.
    """

    def __enter__(self) -> None:
        torch = sys.modules.get("torch")
        self.threads = None if torch is None else torch.get_num_threads()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.threads is not None:
            sys.modules["torch"].set_num_threads(self.threads)
        if isinstance(error, SystemExit):
            raise KdrunError(f"Code of this command called sys.exit({error.code!r}).") from None
        if error is None or isinstance(error, KdrunError | KeyboardInterrupt):
            return
        known = known_error(error)
        if known is not None:
            raise known from error
