"""Read run folders and verify their checksums. All commands read runs through this module.

`SHA256SUMS` lists the digests of a run's files. A run is damaged if a listed file differs or is
missing, if the list is malformed, or if a started run has no `result.json`. A damaged run has no
values: callers skip it and show `fault`. Without a list, or for unlisted files, nothing is verified
(`checked` is false), except that `config.yaml` must hold plain settings.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdrun.checksums import SUMS, find_fault, read_sums
from kdrun.config.plain import require_plain
from kdrun.errors import CheckpointError, ConfigError
from kdrun.files import is_held, read_json
from kdrun.limits import read_yaml
from kdrun.runs.result import (
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    RunResult,
    is_result,
)
from kdrun.runs.shape import CONFIG, fits

RESULT = "result.json"
DESCRIPTION = ("config.yaml", "command.txt", "env.json")
TEXTS = (RESULT, "metrics.jsonl", *DESCRIPTION)
WEIGHTS = ("student.json", "student.safetensors")
UNREADABLE, DAMAGED = "unreadable", "damaged"


@dataclass(frozen=True)
class ReadRun:
    """A run folder. values: its `result.json`; empty if it is unreadable or the run is damaged.

    fault: an error message that names the damaged file; empty for an intact run.
    checked: whether `result.json` is listed and matches its digest.
    """

    folder: Path
    values: dict[str, Any]
    status: str
    fault: str = ""
    checked: bool = False

    @cached_property
    def result(self) -> RunResult:
        """`values` as a `RunResult`."""
        return RunResult.from_dict(self.values)

    @property
    def finished(self) -> bool:
        """Whether the run completed and its metrics are usable."""
        return self.status == COMPLETED


def read_run(folder: Path, more: Iterable[str] = ()) -> ReadRun:
    """Read the run in `folder`, whatever its status; verify its text files and `more`."""
    result = peek(folder)
    status = UNREADABLE if result is None else str(result["status"])
    if status == COMPLETED:
        fault = find_fault(folder, (*TEXTS, *more))
        if not fault and "config.yaml" not in (_sums(folder) or {}):  # parsing each one is slow
            fault = read_settings(folder)[1]
    else:
        fault = find_fault(folder, DESCRIPTION) or _unfinished_fault(folder)
    if fault:
        return ReadRun(folder, {}, DAMAGED, fault)
    return ReadRun(folder, result or {}, status, checked=RESULT in (_sums(folder) or {}))


def read_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """(`config.yaml` as plain values, error message if the file exists but is unusable)."""
    path = folder / "config.yaml"
    if not os.path.lexists(path):
        return {}, ""
    try:
        values = read_yaml(path)
        require_plain(values)
    except (OSError, ValueError, ConfigError) as error:
        return {}, f"{path} is damaged: {str(error).rstrip('.')}. Restore it."
    if not isinstance(values, dict) or not fits(values, CONFIG):
        return {}, f"{path} is damaged: it does not hold the settings of a run. Restore it."
    return values, ""


def read_result(folder: Path) -> dict[str, Any] | None:
    """A run's result; None if it is missing, unreadable or damaged."""
    return read_run(folder).values or None


def peek(folder: Path) -> dict[str, Any] | None:
    """Read `result.json` without verifying it, e.g. to filter runs; None if unreadable."""
    try:
        values = read_json(folder / RESULT)
    except (OSError, ValueError):
        return None
    known = (RUNNING, COMPLETED, INTERRUPTED, FAILED)
    return values if is_result(values) and values.get("status") in known else None


def require_intact(folder: Path, more: Iterable[str] = ()) -> ReadRun:
    """`read_run`; raises CheckpointError if the run is damaged."""
    run = read_run(folder, more)
    if run.fault:
        raise CheckpointError(run.fault)
    return run


def is_run_folder(folder: Path, files: Collection[str] | None = None) -> bool:
    """Whether `folder` holds a run, even if its `result.json` is missing.

    files: the folder's file names, if already listed.
    """
    if files is None:
        try:
            files = os.listdir(folder)
        except OSError:
            return False
    if RESULT in files:
        return True
    if "config.yaml" in files and "command.txt" in files:
        return not {SUMS, "metrics.jsonl", "student.json"}.isdisjoint(files)
    return SUMS in files and RESULT in (_sums(folder) or {})


def matching(
    group: Path,
    wanted: Callable[[dict[str, Any]], bool],
    warn: Callable[[str], None] = lambda fault: None,
    more: Iterable[str] = (),
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (folder, result) of intact runs in a group whose result is `wanted`, newest first.

    warn: called with the fault of each damaged run that matches or might match.
    """
    try:
        folders = sorted(group.iterdir(), reverse=True)
    except OSError:
        return
    for folder in folders:
        unchecked = peek(folder)
        if not is_run_folder(folder) if unchecked is None else not wanted(unchecked):
            continue
        completed = unchecked is not None and unchecked["status"] == COMPLETED
        run = read_run(folder, more if completed else ())
        if run.fault:
            warn(f"{run.fault} The run is skipped.")
        elif run.values and wanted(run.values):
            yield folder, run.values


def _sums(folder: Path) -> dict[str, str] | None:
    try:
        return read_sums(folder)
    except ValueError:
        return None


def _unfinished_fault(folder: Path) -> str:
    """Error message for a damaged unfinished run or a missing `result.json`; empty if intact."""
    listed = _sums(folder) or {}
    exists = os.path.lexists(folder / RESULT)
    if RESULT in listed:  # it had ended: either it is being resumed, or its result was changed
        fault = find_fault(folder, [RESULT])
        return "" if fault and exists and is_held(folder / ".lock") else fault
    if not exists and ("config.yaml" in listed or is_run_folder(folder)):
        return f"{folder / RESULT} is missing: restore it, or run kdrun resume {folder}."
    return ""
