"""Launchers run the jobs of a sweep: in this process, in a joblib pool, or through submitit."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.errors import MissingExtraError

BASIC, JOBLIB, LOCAL, SLURM = "basic", "joblib", "submitit_local", "submitit_slurm"
# hydra/launcher=... → (the library that runs the jobs, the extra that installs it).
LIBRARIES = {
    JOBLIB: ("joblib", "sweep"),
    LOCAL: ("submitit", "slurm"),
    SLURM: ("submitit", "slurm"),
}
# Configuration nodes keep the names that Hydra's own plugins give them.
NAMES = {
    "BasicLauncher": BASIC,
    "JoblibLauncher": JOBLIB,
    "LocalLauncher": LOCAL,
    "SlurmLauncher": SLURM,
}
# Settings of submitit that mean the same on every cluster; all others get the cluster's prefix.
SHARED_SETTINGS = (
    "timeout_min",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "mem_gb",
    "nodes",
    "name",
    "stderr_to_stdout",
)
Job = Callable[[], int]


@dataclass(frozen=True)
class Launcher:
    """A launcher and how it divides this machine.

    processes: concurrent jobs on this machine; 1 where a cluster decides.
    threads: CPU threads of a job that does not set `threads`; None leaves them alone.
    settings: the other keys of its `hydra.launcher` node.
    """

    name: str
    processes: int = 1
    threads: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def in_process(self) -> bool:
        """Whether the jobs run in this process, one after the other."""
        return self.name == BASIC

    def describe(self, asked_threads: int | None) -> str:
        """One line for the head of a sweep; empty where there is nothing to say."""
        if self.in_process:
            return ""
        if self.threads is None:
            return f"{self.name}: each job where the cluster puts it"
        threads, cores = asked_threads or self.threads, cpu_cores()
        line = (
            f"{self.name}: up to {self.processes} jobs at once with {threads} "
            f"thread{'s' * (threads > 1)} each on {cores} CPU cores"
        )
        if self.processes * threads > cores:
            line += " (more than it has: lower threads or hydra.launcher.n_jobs)"
        return line


def launcher_of(node: dict[str, Any], jobs: int) -> Launcher:
    """The launcher that a resolved `hydra.launcher` node describes, for a sweep of `jobs` jobs."""
    target = str(node.get("_target_", "")).rpartition(".")[2]
    name = NAMES.get(target, target)
    settings = {key: value for key, value in node.items() if key != "_target_"}
    if name == JOBLIB:
        return _shared(name, _joblib_processes(int(settings.get("n_jobs", -1))), jobs, settings)
    if name == LOCAL:  # starts all jobs together
        return _shared(name, jobs, jobs, settings)
    return Launcher(name, settings=settings)


def require(name: str) -> None:
    """Raise MissingExtraError when the launcher's library is not installed."""
    if name not in LIBRARIES:
        return
    library, extra = LIBRARIES[name]
    if importlib.util.find_spec(library) is None:
        raise MissingExtraError(library, extra, f"hydra/launcher={name}")


def launch(launcher: Launcher, jobs: Sequence[Job], folder: Path) -> None:
    """Run all jobs and return when the last one has ended.

    jobs: picklable, in the order of their numbers. folder: the sweep's.
    """
    if launcher.in_process:
        for job in jobs:
            job()
    elif launcher.name == JOBLIB:
        _run_in_pool(launcher.settings, jobs)
    else:
        _submit(launcher, jobs, folder)


def _run_in_pool(settings: dict[str, Any], jobs: Sequence[Job]) -> None:
    import joblib

    # the schema of Hydra's plugin, where it is installed, turns some numbers into strings
    options = {
        key: int(value) if isinstance(value, str) and value.isdecimal() else value
        for key, value in settings.items()
    }
    joblib.Parallel(**{**options, "backend": "loky"})(joblib.delayed(job)() for job in jobs)


def _submit(launcher: Launcher, jobs: Sequence[Job], folder: Path) -> None:
    """Submit one job array; `max_num_timeout` requeues a job that ran out of time."""
    import submitit

    cluster = "slurm" if launcher.name == SLURM else "local"
    settings = dict(launcher.settings)
    logs = settings.pop("submitit_folder", None) or folder / "submitit"
    timeouts = settings.pop("max_num_timeout", None)
    options = {} if timeouts is None else {f"{cluster}_max_num_timeout": timeouts}
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster, **options)
    executor.update_parameters(
        **{
            name if name in SHARED_SETTINGS else f"{cluster}_{name}": value
            for name, value in settings.items()
        }
    )
    for submitted in executor.map_array(_Resumable(), jobs):
        submitted.results()


class _Resumable:
    """Calls a job; submitit requeues it with the same arguments when its time ends."""

    def __call__(self, job: Job) -> int:
        return job()

    def checkpoint(self, job: Job) -> Any:
        """Called by submitit before a timeout or preemption."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)


def cpu_cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shared(name: str, processes: int, jobs: int, settings: dict[str, Any]) -> Launcher:
    processes = max(1, min(processes, jobs))
    return Launcher(name, processes, max(1, cpu_cores() // processes), settings)


def _joblib_processes(n_jobs: int) -> int:
    """joblib's meaning of n_jobs: -1 is all cores, -2 all but one."""
    return n_jobs if n_jobs > 0 else max(1, cpu_cores() + 1 + n_jobs)
