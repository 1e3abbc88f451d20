"""Which jobs of a sweep run in lockstep, and running them.

Every job is an ordinary run with its own folder, checkpoints and log, and gives the same result
bit for bit as when it runs by itself. The group shares the data, each augmented batch, the teachers
and their outputs. Jobs are grouped by their configurations.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.distillation.run_identity import identity
from kdrun.distillation.session import Session, open_session
from kdrun.errors import EXIT_INTERRUPTED, Interrupted
from kdrun.files import canonical_hash
from kdrun.sweeps.jobs import label_of
from kdrun.sweeps.lockstep.scheduler import Scheduler
from kdrun.sweeps.lockstep.session import GroupState, JobSlot, LockstepSession
from kdrun.ui.job_reporter import JobReporter

Execute = Callable[..., object]
Guard = Callable[["Job", Callable[..., object], Callable[[], float]], int]
# Settings that must be equal for jobs to share batches and teacher outputs.
SHARED_SCHEDULE = ("batch_size", "precision", "repeated_augmentation")
SHARED_RUNTIME = ("device", "compile", "threads", "output_root")


@dataclass(frozen=True)
class Job:
    """One job of a sweep."""

    number: int
    config: DistillConfig
    argv: Sequence[str]


def lockstep_groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups of jobs that can run in lockstep, in the order of each group's first job.

    Within a group, jobs are sorted by identity: every process takes their locks in the same order,
    so two groups cannot deadlock. Of two equal jobs, the second gets its own group, runs later and
    finds the first one finished.
    """
    groups: dict[str, list[Job]] = {}
    seen: set[str] = set()
    for job in jobs:
        twin = identity(job.config) in seen
        seen.add(identity(job.config))
        groups.setdefault(f"job {job.number}" if twin else _key(job), []).append(job)
    return [sorted(group, key=lambda job: identity(job.config)) for group in groups.values()]


def _key(job: Job) -> str:
    config = job.config
    # Other schemes train several networks or generations within a job.
    other = bool(config.teachers) and config.scheme.name != "offline"
    limited = config.runtime.sweep.job_minutes is not None  # each job has its own clock
    if config.runtime.compile or other or limited or not config.runtime.gang:
        return f"job {job.number}"
    plain = distill_plain(config)
    return canonical_hash(
        {
            "dataset": plain["dataset"],
            "augment": plain.get("augment"),
            "teachers": {k: v for k, v in plain.items() if k.startswith("teacher")},
            "seed": config.seed,
            "val_fraction": config.val_fraction,
            "schedule": [getattr(config.schedule, name) for name in SHARED_SCHEDULE],
            "runtime": [getattr(config.runtime, name) for name in SHARED_RUNTIME],
            "scheme": plain["scheme"],
            "transfer": plain.get("transfer"),
        }
    )


def run_jobs(
    jobs: Sequence[Job], total: int, guard: Guard, execute: Execute, execute_in: Execute
) -> None:
    """Run all jobs, group by group.

    total: number of jobs of the sweep. guard: runs a job with the given function and turns a
    failure into an exit code; it is also given the clock of the job's own seconds.
    Raises Interrupted when stopped.
    """
    for group in lockstep_groups(jobs):
        if len(group) == 1:
            guard(group[0], execute, time.monotonic)
            continue
        with open_session(group[0].config.runtime) as session:
            numbers = ", ".join(str(number + 1) for number in sorted(job.number for job in group))
            session.reporter.say(
                f"  jobs {numbers} of {total} in lockstep: one teacher, one loader"
            )
            if EXIT_INTERRUPTED in _Group(group, session, guard, execute_in, total).run():
                raise Interrupted("the sweep was stopped")


class _Group:
    """A group of jobs in one process, one step of each at a time."""

    def __init__(
        self, jobs: list[Job], session: Session, guard: Guard, execute_in: Execute, total: int
    ) -> None:
        self.jobs = jobs
        self.execute_in = execute_in
        self.total = total
        self.session = session
        self.guard = guard
        self.scheduler = Scheduler(session.device)
        self.state = GroupState(self.scheduler)
        self.codes: list[int] = []

    def run(self) -> list[int]:
        """Run the jobs; returns their exit codes."""
        for number, job in enumerate(self.jobs):
            self.scheduler.add(number, partial(self._job, JobSlot(self.state, number), job))
        self.scheduler.run()
        return self.codes

    def _job(self, slot: JobSlot, job: Job) -> None:
        """Run one job to its end."""

        def command(config: DistillConfig, argv: Sequence[str], **where: Any) -> object:
            reporter = JobReporter(config.runtime.ui, label_of(job.number, self.total))
            group = self.session
            session = LockstepSession(
                config.runtime, group.device, group.threads, reporter, group.stop, slot
            )
            return self.execute_in(session, config, argv, **where)

        code = EXIT_INTERRUPTED
        try:
            if not self.scheduler.stopped:
                code = self.guard(job, command, lambda: self.scheduler.seconds(slot.job))
        except KeyboardInterrupt:  # already reported and saved by the run
            self.session.stop.requested = True  # the other jobs save at their next turn
            self.scheduler.stopped |= self.session.stop.at_once
        finally:
            self.codes.append(code)
