"""Run the jobs of a sweep and record how each ended where every process can read it."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from kdrun.config import trust
from kdrun.config.schema import BenchmarkConfig, DistillConfig
from kdrun.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    KdrunError,
    known_error,
)
from kdrun.files import require_root
from kdrun.removal import remove
from kdrun.runs.footprint import RunFootprint, write_footprint
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import launchers
from kdrun.sweeps.launchers import Launcher
from kdrun.sweeps.plan import Config, SweepPlan

if TYPE_CHECKING:
    from kdrun.sweeps.budget import Decision

Command = Callable[..., object]

KILLED = (
    "a process of the sweep was killed, perhaps by the system because it was out of memory: use "
    "fewer (hydra.launcher.n_jobs=...) or a smaller batch_size, then run kdrun resume"
)
# Its presence in a sweep's folder says that no further job is to start.
STOP_FILE = "stop"


def run(plan: SweepPlan, execute: Command, execute_in: Command | None = None) -> int:
    """Announce, run and summarise a sweep; returns the worst exit code of its jobs.

    execute: runs a job by its configuration. execute_in: the same in an open session; where it is
    given, jobs with gang=true run in lockstep.
    """
    if not any(config.runtime.gang for config in plan.configs):
        execute_in = None
    if execute_in is not None:
        _require_lockstep(plan.launcher)
    from kdrun.sweeps import progress

    require_objectives(plan.configs)
    for config in plan.configs:
        require_root(Path(config.runtime.output_root))
    decisions = _decide(plan)
    over_budget = {number for number, decision in decisions.items() if decision.excess}
    numbers = [number for number in range(len(plan.configs)) if number not in over_budget]
    if execute_in is not None:
        launch = _lockstep(plan, numbers, execute, execute_in)
    else:
        launch = _launched(plan, numbers, execute)
    begin(plan)
    note_decisions(plan.folder, decisions)
    threads = plan.configs[0].runtime.threads
    progress.announce(plan.folder, plan.configs, plan.launcher.describe(threads))
    if plan.launcher.in_process:
        for number in sorted(over_budget):
            progress.say_progress(plan.folder, number)
    return _run_to_the_end(plan, launch)


def _run_to_the_end(plan: SweepPlan, launch: Callable[[], None]) -> int:
    """Run the jobs and summarise them, also when interrupted; returns the worst exit code."""
    from kdrun.sweeps import progress

    folder, interrupted = plan.folder, False
    try:
        with _watched(folder, plan.launcher) as stopped:
            _launch(folder, launch)
        interrupted = bool(stopped)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        codes = folder.codes()
        if codes or not interrupted:
            progress.summarise(folder)
    if interrupted or EXIT_INTERRUPTED in codes:
        return EXIT_INTERRUPTED
    return max(codes, default=EXIT_FAILED)


def _decide(plan: SweepPlan) -> "dict[int, Decision]":
    """Which students are within the budget. Raises ConfigError if none is."""
    if not any(config.runtime.sweep.has_budget for config in plan.configs):
        return {}
    from kdrun.sweeps.budget import decide

    return decide(plan.configs)


def note_decisions(folder: SweepFolder, decisions: "Mapping[int, Decision]") -> None:
    """Record what the students cost, and end the jobs of those over the budget."""
    if not decisions:
        return
    measured = {str(number): one.footprint.to_dict() for number, one in decisions.items()}
    folder.add(footprints={**folder.read().get("footprints", {}), **measured})
    for number, decision in decisions.items():
        if decision.excess:
            folder.update(number, **decision.noted())


def require_objectives(configs: Iterable[Config]) -> None:
    """Raise ConfigError for an invalid objective, before the sweep folder is created."""
    from kdrun.losses.objective import objective_of

    for config in configs:
        config = config.distill if isinstance(config, BenchmarkConfig) else config
        if isinstance(config, DistillConfig):
            objective_of(config)


def _launch(folder: SweepFolder, launch: Callable[[], None]) -> None:
    """Launch the jobs; if the system kills a job's process, relaunch the remaining jobs.

    Joblib then ends all its processes, so the jobs that were in hand are failed together.
    """
    while True:
        try:
            launch()
            return
        except Exception as error:
            if all(one.__name__ != "BrokenProcessPool" for one in type(error).__mro__):
                raise
            in_hand = [note["job"] for note in folder.notes() if note.get("code") is None]
            for number in in_hand:
                folder.update(number, code=EXIT_FAILED, error=KILLED)
            if not in_hand:
                raise KdrunError(KILLED) from None


def begin(plan: SweepPlan) -> None:
    """Write `sweep.json`."""
    folder = plan.folder
    if _is_stopped(folder):
        remove(folder.path, [STOP_FILE])
    runtime = plan.configs[0].runtime
    folder.begin(
        plan.command,
        plan.argvs,
        ui=runtime.ui,
        fail_fast=runtime.sweep.fail_fast,
        launcher=plan.launcher.name,
        processes=plan.launcher.processes,
        threads=plan.launcher.threads,
    )


def _require_lockstep(launcher: Launcher) -> None:
    """Raise ConfigError with a launcher of other processes, MissingExtraError without greenlet."""
    from kdrun.sweeps.lockstep import require_greenlet

    if not launcher.in_process:
        raise ConfigError(
            f"gang=true runs the jobs in lockstep in one process, but hydra/launcher="
            f"{launcher.name} starts several: leave one of the two out."
        )
    require_greenlet()


def _launched(plan: SweepPlan, numbers: Iterable[int], execute: Command) -> Callable[[], None]:
    """The launcher's executor for these jobs."""
    jobs = [
        partial(do_planned_job, plan.folder, number, execute, plan.configs[number],
                plan.argvs[number])
        for number in numbers
    ]  # fmt: skip
    return partial(launchers.launch, plan.launcher, jobs, plan.folder.path)


def _lockstep(
    plan: SweepPlan, numbers: Iterable[int], execute: Command, execute_in: Command
) -> Callable[[], None]:
    """The lockstep executor for these jobs, in this process."""
    from kdrun.sweeps.lockstep import jobs as lockstep_jobs

    def guard(job: lockstep_jobs.Job, call: Command, clock: Callable[[], float]) -> int:
        return do_job(plan.folder, job.number, lambda: job.config, call, list(job.argv), clock)

    jobs = [
        lockstep_jobs.Job(number, config, plan.argvs[number])
        for number in numbers
        if isinstance(config := plan.configs[number], DistillConfig)
    ]
    total = len(plan.configs)
    return lambda: lockstep_jobs.run_jobs(jobs, total, guard, execute, execute_in)


def do_planned_job(
    folder: SweepFolder, number: int, execute: Command, config: Config, argv: list[str]
) -> int:
    """Run one job of a sweep, in this process or in a worker that has just unpickled it."""
    # A worker must know what the command names: the process that planned the sweep checked it.
    trust.name(trust.targets_in(asdict(config)))
    return do_job(folder, number, lambda: config, execute, argv)


def do_job(
    folder: SweepFolder,
    number: int,
    typed: Callable[[], Config],
    command: Command,
    argv: list[str],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run one job in the current process; returns its exit code.

    clock: in seconds; it stands still while other jobs of a lockstep group run.

    Nothing is raised but the interruption of a sweep whose jobs run in this very process.
    """
    from kdrun.sweeps.jobs import label_of

    settings = folder.read()
    ended = (folder.note(number) or {}).get("code")
    if ended is not None:  # before the jobs were launched again
        return int(ended)
    if _stops(folder, settings):
        return EXIT_FAILED
    folder.update(number, code=None, error=None, pid=os.getpid(), host=socket.gethostname())
    started = clock()
    error: BaseException | None = None
    try:
        config = _shared_out(typed(), settings, number)
        command(config, argv, sweep_dir=folder.path, job=number)
    except BaseException as caught:
        error = known_error(caught) or caught
    code = _exit_code(error)
    seconds = round(clock() - started, 3)
    folder.update(number, code=code, seconds=seconds, error=_last_line(error))
    if code == EXIT_DONE:
        _keep_footprint(folder, settings, number)
    if error is not None and code != EXIT_INTERRUPTED:
        _say(label_of(number, folder.total()), error)
    if settings["launcher"] == "basic":
        from kdrun.sweeps import progress

        progress.say_progress(folder, number)
        if isinstance(error, KeyboardInterrupt):
            raise error
    return code


def _keep_footprint(folder: SweepFolder, settings: dict[str, Any], number: int) -> None:
    """Write what the job's networks cost into its run folder, where the sweep measured it."""
    measured = settings.get("footprints", {}).get(str(number))
    run = (folder.note(number) or {}).get("run")
    if measured is not None and run is not None:
        write_footprint(Path(run), RunFootprint.from_dict(measured))


def _stops(folder: SweepFolder, settings: dict[str, Any]) -> bool:
    """Whether no further job is to start: the sweep was interrupted, or must fail fast."""
    if _is_stopped(folder):
        return True
    codes = folder.codes()
    failed = any(code not in (EXIT_DONE, EXIT_INTERRUPTED) for code in codes)
    return EXIT_INTERRUPTED in codes or (settings["fail_fast"] and failed)


def _is_stopped(folder: SweepFolder) -> bool:
    """Whether kdrun's own stop file is there, which is empty."""
    path = folder.path / STOP_FILE
    return path.is_file() and path.stat().st_size == 0


def _shared_out(config: Config, settings: dict[str, Any], number: int) -> Config:
    """The job's configuration with its share of the machine, where several jobs run at once.

    Their screens would mix: the process that runs the sweep says how they stand, and everything
    else is in each run's log.
    """
    if settings["launcher"] == "basic" or isinstance(config, BenchmarkConfig):
        return config
    runtime = replace(config.runtime, ui="quiet" if settings["launcher"] == "joblib" else "plain")
    if runtime.threads is None:
        runtime = replace(runtime, threads=settings["threads"])
    if runtime.device == "auto" and settings["processes"] > 1:
        from kdrun.engine.devices import spread

        runtime = replace(runtime, device=spread(number))
    return replace(config, runtime=runtime)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return EXIT_DONE
    if isinstance(error, KdrunError):
        return error.exit_code
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILED


def _last_line(error: BaseException | None) -> str | None:
    if error is None:
        return None
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[-1].strip() if lines else ""
    if isinstance(error, KdrunError) and len(lines) > 1:  # the frames of a user's own code
        text = lines[0].strip()
    if isinstance(error, KdrunError | KeyboardInterrupt):
        return text or "stopped"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _say(label: str, error: BaseException) -> None:
    from kdrun.ui import console

    if isinstance(error, KdrunError):
        console.error(f"{label}: {error}")
        return
    console.error(f"{label} failed:")
    console.bug(error)


@contextmanager
def _watched(folder: SweepFolder, launcher: Launcher) -> Iterator[list[int]]:
    """While other processes do the jobs, say how they stand; yields the signals that came.

    The first Ctrl-C (or SIGTERM, SIGHUP, a closed standard output) lets the jobs in hand save their
    state and starts no other; a second one stops at once.
    """
    stopped: list[int] = []
    if launcher.in_process:
        yield stopped
        return
    from kdrun.sweeps import progress

    def stop(number: int, frame: FrameType | None) -> None:
        if number in stopped:
            raise KeyboardInterrupt
        if stopped:  # another signal of the same request
            return
        stopped.append(number)
        (folder.path / STOP_FILE).touch()
        _ask_to_stop(folder)

    from kdrun.engine.interrupt import handled_signals

    before = {number: signal.signal(number, stop) for number in handled_signals()}
    try:
        with progress.watching(folder):
            yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_to_stop(folder: SweepFolder) -> None:
    """SIGTERM for the jobs in hand on this machine; a terminal's Ctrl-C has reached them already,
    and counts with it as one request."""
    for note in folder.notes():
        if note.get("code") is None and note.get("host") == socket.gethostname():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(note["pid"], signal.SIGTERM)
