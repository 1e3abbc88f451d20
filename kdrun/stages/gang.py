"""A gang: jobs of a sweep that share batches and teacher, trained side by side in one process.

Every job is its ordinary run, with its own folder, checkpoints and log, and ends in the same bits.
What they share is made once: the data, each batch with its augmentation, the teachers, and what
they say of a batch. Which jobs go together is read from their configurations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.errors import EXIT_INTERRUPTED, Interrupted
from kdrun.files import canonical_hash
from kdrun.recipes.lr_schedules import TrainingLength
from kdrun.stages import commands
from kdrun.stages.identity import identity
from kdrun.stages.seats import SeatInGang, Shared, Turns
from kdrun.stages.session import Session, open_session
from kdrun.ui.reporter import Reporter, epoch_line

Guard = Callable[["Job", Callable[..., object]], int]
# What must be equal for jobs to see the same batches and to ask the same teacher in the same way.
SHARED_SCHEDULE = ("batch_size", "precision")
SHARED_RUNTIME = ("device", "compile", "threads", "output_root")


@dataclass(frozen=True)
class Job:
    """One job of a sweep."""

    number: int
    config: DistillConfig
    argv: Sequence[str]


def gangs(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups that can be trained side by side, by the first job of each.

    Within a group in the order of their identities: every process takes the locks of several jobs
    in one order, so that two gangs never wait for each other. Of two equal jobs the second comes
    by itself, later, and finds the first one done.
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
    # Schemes of rounds or peers have runs and networks of their own within a job.
    other = bool(config.teachers) and config.scheme.name != "offline"
    limited = config.runtime.sweep.job_minutes is not None  # each job has a clock of its own
    if config.runtime.compile or other or limited or not config.runtime.gang:
        return f"job {job.number}"
    plain = distill_plain(config)
    return canonical_hash(
        {
            "dataset": plain["dataset"],
            "teachers": {k: v for k, v in plain.items() if k.startswith("teacher")},
            "seed": config.seed,
            "val_fraction": config.val_fraction,
            "schedule": [getattr(config.schedule, name) for name in SHARED_SCHEDULE],
            "runtime": [getattr(config.runtime, name) for name in SHARED_RUNTIME],
            "scheme": plain["scheme"],
            "transfer": plain.get("transfer"),
        }
    )


def run_jobs(jobs: Sequence[Job], guard: Guard) -> None:
    """Do all jobs, gang by gang.

    guard: does a job with the function it is given, and turns its failure into a code.
    Raises Interrupted when stopped.
    """
    for group in gangs(jobs):
        if len(group) == 1:
            guard(group[0], commands.distill)
            continue
        with open_session(group[0].config.runtime) as session:
            numbers = ", ".join(str(number) for number in sorted(job.number for job in group))
            session.reporter.heading(f"jobs {numbers} side by side: one teacher, the same batches")
            if EXIT_INTERRUPTED in _Gang(group, session, guard).run():
                raise Interrupted("the sweep was stopped")


class _Gang:
    """One group at work: the jobs in turns, one step at a time."""

    def __init__(self, jobs: list[Job], session: Session, guard: Guard) -> None:
        self.jobs = jobs
        self.session = session
        self.guard = guard
        self.turns = Turns(session.device)
        self.shared = Shared(self.turns)
        self.codes: list[int] = []

    def run(self) -> list[int]:
        """Do the jobs; returns their exit codes."""
        for place, job in enumerate(self.jobs):
            self.turns.enter(place, partial(self._job, place, job))
        self.turns.run()
        return self.codes

    def _job(self, place: int, job: Job) -> None:
        """One job, from its first turn to its end."""

        def command(config: DistillConfig, argv: Sequence[str], **where: Any) -> object:
            reporter = JobReporter(self.session.reporter, job.number)
            seat = SeatInGang(self.shared, place)
            own = replace(self.session, runtime=config.runtime, reporter=reporter, seat=seat)
            return commands.distill_in(own, config, argv, **where)

        code = EXIT_INTERRUPTED
        try:
            if not self.turns.broken:
                code = self.guard(job, command)
        except KeyboardInterrupt:  # it was said and saved where it happened
            self.session.stop.requested = True  # the others save too, at their next turns
            self.turns.broken |= self.session.stop.at_once
        finally:
            self.codes.append(code)


class JobReporter(Reporter):
    """What one job of a gang says: all of it in its log, the finished epochs on the screen."""

    def __init__(self, screen: Reporter, number: int) -> None:
        super().__init__("quiet")
        self.screen = screen
        self.number = number

    def warn(self, text: str) -> None:
        """On the screen too."""
        super().warn(text)
        self.screen.warn(f"job {self.number}: {text}")

    def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None:
        """On the screen where it is the last one or a while has passed."""
        due = self._watch.due(self._interval)
        super().epoch_done(row, length)
        if due or row["step"] >= length.steps:
            line = epoch_line(row, length, self._watch.left(length.steps)).strip()
            self.screen.say(f"  job {self.number}: {line}")
