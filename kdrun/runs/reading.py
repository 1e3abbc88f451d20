"""Finished runs, read in one way by every command: each file is checked before it is used.

A run's folder lists the SHA-256 of its files in `SHA256SUMS`. A run is damaged when a listed file
differs or is missing, when the list itself is not one, and when `result.json` is gone from a run
that had begun. A damaged run yields no numbers: whoever reads it leaves it out and shows `fault`.
A run without a list is taken as it is (`checked` is false), and so is a file that is not listed,
but for a `config.yaml` that does not hold plain settings.
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
    """A run's folder. values: its `result.json`; empty when unreadable or the run is damaged.

    fault: a sentence that names the damaged file; empty for a run that is good.
    checked: whether `result.json` is listed and is as listed.
    """

    folder: Path
    values: dict[str, Any]
    status: str
    fault: str = ""
    checked: bool = False

    @cached_property
    def result(self) -> RunResult:
        """`values`, typed."""
        return RunResult.from_dict(self.values)

    @property
    def finished(self) -> bool:
        """Whether it has ended and its numbers can be used."""
        return self.status == COMPLETED


def read_run(folder: Path, more: Iterable[str] = ()) -> ReadRun:
    """The run in `folder`, in whatever state, its text files and `more` checked."""
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
    """`config.yaml` as plain values, and a sentence when it is there but cannot be used."""
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
    """The result of a run; None when there is none that can be read, or the run is damaged."""
    return read_run(folder).values or None


def peek(folder: Path) -> dict[str, Any] | None:
    """`result.json` as it is, unchecked, to see whether it is the run looked for; None for none."""
    try:
        values = read_json(folder / RESULT)
    except (OSError, ValueError):
        return None
    known = (RUNNING, COMPLETED, INTERRUPTED, FAILED)
    return values if is_result(values) and values.get("status") in known else None


def require_intact(folder: Path, more: Iterable[str] = ()) -> ReadRun:
    """`read_run`; raises CheckpointError for a damaged one."""
    run = read_run(folder, more)
    if run.fault:
        raise CheckpointError(run.fault)
    return run


def is_run_folder(folder: Path, files: Collection[str] | None = None) -> bool:
    """Whether `folder` holds a run, also one whose `result.json` is missing.

    files: the names in it, where they are known.
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
    """(folder, result) of the good runs in a group whose result is `wanted`, the newest first.

    warn: is told the fault of each damaged run that is, or may be, among those wanted.
    """
    try:
        folders = sorted(group.iterdir(), reverse=True)
    except OSError:
        return
    for folder in folders:
        seen = peek(folder)
        if (seen is not None and not wanted(seen)) or (seen is None and not is_run_folder(folder)):
            continue
        run = read_run(folder, more if seen is not None and seen["status"] == COMPLETED else ())
        if run.fault:
            warn(f"{run.fault} The run is left out.")
        elif run.values and wanted(run.values):
            yield folder, run.values


def _sums(folder: Path) -> dict[str, str] | None:
    try:
        return read_sums(folder)
    except ValueError:
        return None


def _unfinished_fault(folder: Path) -> str:
    """What is wrong with a run that says it has not ended, or says nothing."""
    listed = _sums(folder) or {}
    there = os.path.lexists(folder / RESULT)
    if RESULT in listed:  # it had ended: either it goes on now, or its result was changed
        fault = find_fault(folder, [RESULT])
        return "" if fault and there and is_held(folder / ".lock") else fault
    if not there and ("config.yaml" in listed or is_run_folder(folder)):
        return f"{folder / RESULT} is missing: restore it, or go on with kdrun resume {folder}."
    return ""
