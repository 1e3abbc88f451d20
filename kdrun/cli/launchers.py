"""What runs a sweep's jobs: this process one after the other, several processes, or a cluster."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from kdrun.errors import MissingExtraError

# hydra/launcher=... → the plugin's package, and the extra that installs it.
PLUGINS = {
    "joblib": ("hydra_joblib_launcher", "hydra-joblib-launcher", "sweep"),
    "submitit_local": ("hydra_submitit_launcher", "hydra-submitit-launcher", "slurm"),
    "submitit_slurm": ("hydra_submitit_launcher", "hydra-submitit-launcher", "slurm"),
}
NAMES = {
    "BasicLauncher": "basic",
    "JoblibLauncher": "joblib",
    "LocalLauncher": "submitit_local",
    "SlurmLauncher": "submitit_slurm",
}


@dataclass(frozen=True)
class Launcher:
    """A launcher and how it shares out this machine.

    processes: jobs at the same time on this machine; 1 where another machine decides.
    threads: of each job that does not say `threads=`; None leaves them alone.
    """

    name: str
    processes: int = 1
    threads: int | None = None

    @property
    def in_process(self) -> bool:
        """Whether the jobs run in this process, one after the other."""
        return self.name == "basic"

    def describe(self, asked_threads: int | None) -> str:
        """One line for the head of a sweep; empty where there is nothing to say."""
        if self.in_process:
            return ""
        if self.threads is None:
            return f"{self.name}: each job where the cluster puts it"
        threads, cores = asked_threads or self.threads, processor_cores()
        line = (
            f"{self.name}: up to {self.processes} jobs at once with {threads} "
            f"thread{'s' * (threads > 1)} each on {cores} processor cores"
        )
        if self.processes * threads > cores:
            line += " (more than it has: lower threads or hydra.launcher.n_jobs)"
        return line


def launcher_of(config: Any, jobs: int) -> Launcher:
    """The launcher that Hydra's `hydra.launcher` node describes, for a sweep of `jobs` jobs."""
    target = str(config.get("_target_", "")).rpartition(".")[2]
    name = NAMES.get(target, target)
    if name == "joblib":
        return _shared(name, _joblib_processes(int(config.get("n_jobs", -1))), jobs)
    if name == "submitit_local":  # starts all jobs together
        return _shared(name, jobs, jobs)
    return Launcher(name)


def require(name: str) -> None:
    """Raise MissingExtraError when the launcher's plugin is not installed."""
    if name not in PLUGINS:
        return
    module, package, extra = PLUGINS[name]
    try:
        found = importlib.util.find_spec(f"hydra_plugins.{module}")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise MissingExtraError(package, extra, f"hydra/launcher={name}")


def processor_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shared(name: str, processes: int, jobs: int) -> Launcher:
    processes = max(1, min(processes, jobs))
    return Launcher(name, processes, max(1, processor_cores() // processes))


def _joblib_processes(n_jobs: int) -> int:
    """joblib's meaning of n_jobs: -1 is all cores, -2 all but one."""
    return n_jobs if n_jobs > 0 else max(1, processor_cores() + 1 + n_jobs)
