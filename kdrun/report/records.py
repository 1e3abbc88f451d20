"""Run and sweep folders as a report reads them.

Reads `result.json`, `config.yaml`, `metrics.jsonl`, `command.txt`, `env.json` and `sweep.json`;
imports no torch. Unfinished and damaged runs are returned too, with their status.
"""

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError, did_you_mean
from kdrun.files import require_path
from kdrun.limits import (
    LARGEST_LINES,
    MIB,
    finite,
    parse_json,
    read_json,
    read_text,
)
from kdrun.runs import reading
from kdrun.runs.footprint import (
    STUDENT,
    MeasuredLatency,
    RunFootprint,
    read_footprint,
    read_latencies,
)
from kdrun.runs.reading import DAMAGED, RESULT, is_run_folder
from kdrun.runs.result import COMPLETED, RunResult
from kdrun.runs.shape import EPOCH, fits
from kdrun.runs.sweeps import SWEEP_FILE, SweepFolder, different

NOT_STARTED, GONE, OVER_BUDGET = "not started", "folder gone", "over budget"
# Folders below an output root that hold no runs.
SKIPPED = ("checkpoints", "pictures", "teachers", "cache")
# Settings that repeat a configuration instead of changing it.
SEEDS = ("seed", "teacher.seed")


@dataclass(frozen=True)
class Run:
    """A run folder. result: empty when it cannot be read; status says why.

    job: the command of a sweep's job whose folder has no command.txt.
    checked: whether its files were compared with their checksums.
    """

    folder: Path
    result: RunResult
    status: str
    job: str = ""
    checked: bool = True

    @property
    def finished(self) -> bool:
        """Whether it has results."""
        return self.status == COMPLETED

    @property
    def verb(self) -> str:
        """`distill`, `train-teacher`, ..."""
        return self.result.command or ""

    @property
    def seed(self) -> int | None:
        """The seed of the network that was trained."""
        return self.result.seed

    @property
    def error(self) -> str:
        """The last line of the error; empty when there is none."""
        lines = (self.result.error or "").strip().splitlines()
        return lines[-1] if lines else ""

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.yaml`; empty when unreadable."""
        return self._settings[0]

    @cached_property
    def config_fault(self) -> str:
        """Why `config.yaml` cannot be used; empty when it is usable or absent."""
        return self._settings[1]

    @cached_property
    def _settings(self) -> tuple[dict[str, Any], str]:
        return reading.read_settings(self.folder)

    @cached_property
    def command(self) -> str:
        """The command that repeats the run."""
        return _text(self.folder / "command.txt").strip() or self.job

    @cached_property
    def environment(self) -> dict[str, Any]:
        """`env.json`."""
        return read_object(self.folder / "env.json")

    @cached_property
    def footprint(self) -> RunFootprint | None:
        """`footprint.json`; None where no sweep measured it."""
        return read_footprint(self.folder)

    @cached_property
    def latencies(self) -> list[MeasuredLatency]:
        """The measured latencies of its networks: of a sweep with a budget, then of an export."""
        return read_latencies(
            self.folder,
            str(self.result.student.name),
            [str(teacher.name) for teacher in self.result.teachers],
            find(self.config, "student", "quantize"),
        )

    @property
    def weight_bytes(self) -> float | None:
        """Bytes of the student's weights as deployed."""
        return None if self.footprint is None else float(self.footprint.student.bytes)

    @property
    def latency_ms(self) -> float | None:
        """The first latency of the student."""
        values = [one.latency_ms for one in self.latencies if one.network == STUDENT]
        return values[0] if values else None

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """A row per epoch; truncated lines and impossible values are skipped."""
        rows = read_rows(self.folder / "metrics.jsonl")
        return [row for row in rows if fits(row, EPOCH)]


@dataclass(frozen=True)
class Sweep:
    """A sweep or a search. varied: the settings it varies, seeds excluded. runs: its run folders,
    resolved."""

    folder: Path
    varied: tuple[str, ...]
    search: bool
    runs: frozenset[Path]


@dataclass(frozen=True)
class Collected:
    """All runs below some folders, each once, sorted by folder name.

    missing: jobs of sweeps without a run folder, and damaged sweeps.
    """

    runs: list[Run]
    sweeps: list[Sweep] = field(default_factory=list)
    missing: list[Run] = field(default_factory=list)

    @property
    def everything(self) -> list[Run]:
        """The runs, and the jobs without one."""
        return [*self.runs, *self.missing]


def collect(folders: Iterable[Path]) -> Collected:
    """The runs in `folders`: run folders, sweep folders, or any folder above them.

    Raises ConfigError for folders that do not exist and when there is no run in any.
    """
    folders = list(folders)
    runs: dict[Path, Run] = {}
    missing: list[Run] = []
    sweep_folders: set[Path] = set()
    for folder in folders:
        _require_folder(folder)
        for path in _below(folder):
            if path.name == SWEEP_FILE:
                sweep_folders.add(path.parent)
            else:
                runs.setdefault(path.parent.resolve(), read_run(path.parent))
    sweeps = []
    for folder in sorted(sweep_folders):
        fault = SweepFolder(folder).fault()
        if fault:
            missing.append(Run(folder, RunResult(error=fault), DAMAGED))
        else:
            sweeps.append(_read_sweep(folder, runs, missing))
    if not runs and not missing:
        names = ", ".join(map(str, folders))
        raise ConfigError(
            f"There are no runs in {names}: no result.json anywhere below. kdrun ls runs lists the "
            "runs there are; kdrun distill makes one."
        )
    ordered = sorted(runs.values(), key=lambda run: (run.folder.name, str(run.folder)))
    return Collected(ordered, sweeps, missing)


def _read_sweep(folder: Path, runs: dict[Path, Run], missing: list[Run]) -> Sweep:
    """A sweep; adds its runs to `runs` and its jobs without one to `missing`."""
    values = read_object(folder / SWEEP_FILE)
    jobs, typed = values.get("jobs"), values.get("command")
    members = set()
    for position, job in enumerate(jobs if isinstance(jobs, list) else []):
        if not isinstance(job, dict):
            continue
        args = job.get("command")
        command = shlex.join(["kdrun", *map(str, args)]) if isinstance(args, list) else ""
        run = _run_of_job(folder, job.get("job", position), command)
        if isinstance(run, Path):
            members.add(run.resolve())
            runs.setdefault(run.resolve(), read_run(run, command))
        else:
            missing.append(run)
    search = isinstance(typed, list) and typed[:1] == ["search"]
    return Sweep(folder, _varied(values), search, frozenset(members))


def _run_of_job(sweep: Path, number: Any, command: str) -> Path | Run:
    """The run folder of a job; for a job without one, a `Run` whose status says why."""
    note = sweep / "jobs" / f"{number}.json"
    fault = SweepFolder(sweep).note_fault(number)
    if fault:
        return Run(note, RunResult(error=fault), DAMAGED, command)
    ended = read_object(note)
    error, status, place = str(ended.get("error") or ""), NOT_STARTED, sweep
    if isinstance(ended.get("run"), str):
        status, place = GONE, Path(ended["run"])
        found = _moved(place, sweep)
        if found is not None:
            return found
    if excess := ended.get("over_budget"):
        error, status = f"{OVER_BUDGET}: {excess}", OVER_BUDGET
    return Run(place, RunResult(error=error), status, command)


def _varied(values: dict[str, Any]) -> tuple[str, ...]:
    """The settings in which the jobs of a `sweep.json` differ, without seeds."""
    jobs = values.get("jobs")
    entries = [job for job in jobs if isinstance(job, dict)] if isinstance(jobs, list) else []
    commands = [
        [str(word) for word in job.get("chosen") or job.get("command") or ()]
        for job in entries
        if isinstance(job.get("chosen") or job.get("command"), list)
    ]
    if any("chosen" in job for job in entries):
        choices = commands
    else:
        choices = different(commands) if len(commands) > 1 else []
    keys = dict.fromkeys(
        word.lstrip("+~").partition("=")[0] for job in choices for word in job if "=" in word
    )
    return tuple(key for key in keys if key not in SEEDS)


def read_run(folder: Path, job: str = "") -> Run:
    """The run in a folder, in any state."""
    run = reading.read_run(folder)
    result = RunResult(error=run.fault) if run.fault else run.result
    read = Run(folder, result, run.status, job, run.checked)
    if read.finished and read.config_fault:
        return Run(folder, RunResult(error=read.config_fault), DAMAGED, job, run.checked)
    return read


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when unreadable."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; other lines are skipped."""
    rows = []
    for line in _text(path, LARGEST_LINES).splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def find(values: Any, *path: str) -> Any:
    """The value at `path` within nested objects; None when there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def number(values: Any, *path: str) -> float | None:
    """The finite number at `path` within nested objects; None when there is none."""
    return finite(find(values, *path))


def _require_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.is_file():
        raise ConfigError(f"{folder} is a file: name the folder it is in, {folder.parent}.")
    require_path(folder)  # a link that leads nowhere
    parent, wanted = folder.parent, folder.name
    while not parent.is_dir() and parent != parent.parent:
        parent, wanted = parent.parent, parent.name
    if not parent.is_dir():
        raise ConfigError(f"There is no folder {folder}. kdrun ls runs lists the runs there are.")
    close = did_you_mean(wanted, [path.name for path in parent.iterdir() if path.is_dir()])
    raise ConfigError(
        f"There is no folder {folder}: {parent} has no '{wanted}'.{close} "
        "kdrun ls runs lists the runs there are."
    )


def _below(folder: Path) -> Iterator[Path]:
    """The path of every run's result.json, present or not, and of every sweep.json.

    Does not descend into run folders.
    """
    for place, inner, files in os.walk(folder):
        if is_run_folder(Path(place), files):
            yield Path(place) / RESULT
            inner.clear()
            continue
        if SWEEP_FILE in files:
            yield Path(place) / SWEEP_FILE
        inner[:] = sorted(i for i in inner if not i.startswith(".") and i not in SKIPPED)


def _moved(run: Path, sweep: Path) -> Path | None:
    """The run's folder: as recorded, or below the sweep's present output root."""
    tails = [Path(*run.parts[skipped:]) for skipped in range(len(run.parts))]
    candidates = [run, *(above / tail for above in sweep.resolve().parents for tail in tails)]
    return next((path for path in candidates if is_run_folder(path)), None)


def _text(path: Path, largest: int = MIB) -> str:
    try:
        return read_text(path, largest, "replace")
    except (OSError, ValueError):
        return ""
